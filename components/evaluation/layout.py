"""A few documents as a batch to measure losses on: one document a row, padded to the longest.

Legend: B documents (rows), n patches an image, M images of all documents, W numbers in a patch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from components.data.row_layout import RowForm, lay_out_streams
from components.evaluation.held_out import Stored
from model.batch import Batch
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
    length = max(num_positions(document, config) for document in stored)
    form = RowForm(length, math.prod(grid), boi=config.image.begin_token_id, pad=config.pad_token_id)
    layout = lay_out_streams(form, [document.ids for document in stored], np.arange(len(stored)))
    latents = [torch.from_numpy(document.latents) for document in stored if len(document.latents)]
    patches = patchify(torch.cat(latents), config.image.patch_size) if latents else torch.zeros(0, 1, config.image.patch_dim)
    return layout.batch(patches.flatten(0, 1), grid)


def caption_first(stored: Stored, caption_source: np.ndarray, config: ModelConfig) -> Stored:
    """The one image of `stored` after the text of another stored stream: [bos] text [boi] [eoi] [eos]."""
    image = [config.image.begin_token_id, config.image.end_token_id]
    text = text_of(caption_source, config)
    return Stored(np.concatenate([[config.bos_token_id], text, image, [config.eos_token_id]]), stored.latents)


def image_first(stored: Stored, caption_source: np.ndarray, config: ModelConfig) -> Stored:
    """The one image of `stored` before the text of another stored stream: [bos] [boi] [eoi] text [eos]."""
    image = [config.image.begin_token_id, config.image.end_token_id]
    text = text_of(caption_source, config)
    return Stored(np.concatenate([[config.bos_token_id], image, text, [config.eos_token_id]]), stored.latents)


def text_of(ids: np.ndarray, config: ModelConfig) -> np.ndarray:
    """A stored stream without the tokens that mark documents and images."""
    markers = (config.bos_token_id, config.eos_token_id, config.image.begin_token_id, config.image.end_token_id)
    return ids[~np.isin(ids, markers)]


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
