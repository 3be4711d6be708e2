"""How do a few documents become a Batch to measure losses on? One document a row, padded to the longest.

Legend: B documents (rows), n patches an image, M images of all documents, W numbers in a patch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from components.data.row_layout import RowForm, lay_out, places
from components.evaluation.held_out import Stored
from model.batch import Batch, Latents
from model.config import ModelConfig
from model.latents.patches import patchify


def image_grid(stored: Sequence[Stored], config: ModelConfig) -> tuple[int, int]:
    """Patches down and across every image, (0, 0) where no document has one."""
    shape = next((document.latents.shape for document in stored if len(document.latents)), (0, 0, 0, 0))
    return shape[2] // config.image.patch_size[0], shape[3] // config.image.patch_size[1]


def num_positions(stored: Stored, config: ModelConfig) -> int:
    """Row positions of one document, its patches included."""
    return len(stored.ids) + len(stored.latents) * math.prod(image_grid([stored], config))


def rows_of(stored: Sequence[Stored], config: ModelConfig) -> Batch:
    """One row a document; nothing is hidden. sample_index counts the images of this batch from 0."""
    grid = image_grid(stored, config)
    num_images = sum(len(document.latents) for document in stored)
    length = max(num_positions(document, config) for document in stored)
    form = RowForm(length, math.prod(grid), boi=config.image.begin_token_id, pad=config.pad_token_id)
    tokens = np.concatenate([document.ids for document in stored])
    document_at = np.cumsum([0, *(len(document.ids) for document in stored)])
    layout = lay_out(
        form,
        tokens,
        document_at,
        places(form, tokens, document_at, np.arange(len(stored))),
        hidden_captions=np.zeros(num_images, np.bool_),
        num_rows=len(stored),
    )
    latents = [torch.from_numpy(document.latents) for document in stored if len(document.latents)]
    no_patches = torch.zeros(0, config.image.patch_dim)
    images = Latents(
        patches=patchify(torch.cat(latents), config.image.patch_size).flatten(0, 1) if latents else no_patches,
        patch_positions=torch.from_numpy(layout.patch_positions),
        latent_index=torch.arange(num_images).repeat_interleave(math.prod(grid)),
        sample_index=torch.arange(num_images),
        time_limit=torch.ones(num_images),
        grids=(grid,) * num_images,
    )
    return layout.batch(images)


def in_groups(stored: Sequence[Stored], config: ModelConfig, max_positions: int) -> Iterator[list[int]]:
    """Indices of documents of like length, at most max_positions padded row positions (or one document) a group."""
    lengths = [num_positions(document, config) for document in stored]
    group: list[int] = []
    for index in sorted(range(len(stored)), key=lengths.__getitem__):
        if group and (len(group) + 1) * lengths[index] > max_positions:
            yield group
            group = []
        group.append(index)
    if group:
        yield group
