"""A benchmark's documents as a Batch: packed into rows by the project's packer, laid out by the definition.

Legend: B rows, L row length, n positions of one document, P patches, Y/X patches along the axes of an image, W numbers in a
patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from components.data.encode.packing import pack
from model.batch import Batch, Latents
from model.config import ModelConfig


class Stream(NamedTuple):
    """One document with its markers.

    ids: int64 [n], pad_token_id where a patch stands. last: int64 [n], the last position that each sees. is_patch, predicts:
    bool [n]. after_image: bool [n], whether an image stands before. images: float32 [Y, X, W] each.
    """

    ids: Tensor
    last: Tensor
    is_patch: Tensor
    predicts: Tensor
    after_image: Tensor
    images: list[Tensor]


def stream(document: Sequence[Tensor], config: ModelConfig) -> Stream:
    """Lay one document out: text as int64, images as float32 [Y, X, W] between their markers."""
    image = config.image
    ids, blocks, length = [torch.tensor([config.bos_token_id])], [], 1
    for segment in document:
        if segment.is_floating_point():
            size = segment.shape[0] * segment.shape[1]
            blocks.append((length + 1, length + 1 + size))
            segment = torch.tensor([image.begin_token_id, *[config.pad_token_id] * size, image.end_token_id])
        ids.append(segment)
        length += len(segment)
    flat = torch.cat([*ids, torch.tensor([config.eos_token_id])])
    last, is_patch = torch.arange(len(flat)), torch.zeros(len(flat), dtype=torch.bool)
    for start, end in blocks:
        last[start:end] = end - 1
        is_patch[start:end] = True
    # No text is predicted where a patch or the beginning of an image is read, nor at the end.
    predicts = ~is_patch & (flat != image.begin_token_id)
    predicts[-1] = False
    after_image = is_patch.cumsum(0) > 0
    return Stream(flat, last, is_patch, predicts, after_image, [each for each in document if each.is_floating_point()])


def packed_batch(documents: Sequence[Sequence[Tensor]], config: ModelConfig, row_length: int) -> Batch:
    """A batch of all documents, packed into rows of row_length."""
    streams = [stream(document, config) for document in documents]
    rows = pack(np.array([len(each.ids) for each in streams]), row_length)
    num_rows = len(rows.row_at) - 1
    ids = torch.full((num_rows * row_length,), config.pad_token_id)
    position = torch.zeros_like(ids)
    first = torch.arange(row_length, dtype=torch.int32).repeat(num_rows)
    last = first.clone()
    flags = torch.zeros(3, num_rows * row_length, dtype=torch.bool)
    images: list[Tensor] = []
    for row in range(num_rows):
        column = 0
        for index in rows.document[rows.row_at[row] : rows.row_at[row + 1]].tolist():
            each = streams[index]
            here = slice(row * row_length + column, row * row_length + column + len(each.ids))
            ids[here], position[here] = each.ids, torch.arange(len(each.ids))
            first[here], last[here] = column, (column + each.last).int()
            flags[:, here] = torch.stack([each.is_patch, each.predicts, each.after_image])
            images += each.images
            column += len(each.ids)
    is_patch, predicts, after_image = flags
    loss_positions = predicts.nonzero().squeeze(1)
    shape = (num_rows, row_length)
    return Batch(
        input_ids=ids.view(shape),
        position_ids=position.view(shape),
        kv_start=first.view(shape),
        kv_end=last.view(shape),
        latents=(_latents(images, is_patch, config.image.patch_dim),),
        loss_positions=loss_positions,
        labels=ids[loss_positions + 1],
        after_image=after_image[loss_positions],
    )


def _latents(images: list[Tensor], is_patch: Tensor, patch_dim: int) -> Latents:
    """images: float32 [Y, X, W] each, in the order in which their patches stand in the flattened rows."""
    sizes = torch.tensor([each.shape[0] * each.shape[1] for each in images], dtype=torch.long)
    return Latents(
        patches=torch.cat([each.flatten(0, 1) for each in images]) if images else torch.zeros(0, patch_dim),
        patch_positions=is_patch.nonzero().squeeze(1),
        latent_index=torch.arange(len(images)).repeat_interleave(sizes),
        sample_index=torch.arange(len(images)),
        time_limit=torch.ones(len(images)),
        grids=tuple((each.shape[0], each.shape[1]) for each in images),
    )
