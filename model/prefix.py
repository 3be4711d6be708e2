"""How does what is given enter the cache? Prefixes laid out position by position, padded together into one step.

Legend: B rows, S positions a step, n positions of one prefix, W numbers in a patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from model.config import ModelConfig
from model.engine import StepInputs
from model.patches import cut
from model.requests import Request


class Layout(NamedTuple):
    """A prefix position by position: ids [n], patches [n, W], is_image [n], q_last [n]."""

    ids: Tensor
    patches: Tensor
    is_image: Tensor
    q_last: Tensor


def text_facts(length: int, start: int = 0) -> tuple[Tensor, Tensor]:
    return torch.zeros(length, dtype=torch.bool), start + torch.arange(length)


def lay_out(config: ModelConfig, prefix: Sequence[Tensor]) -> Layout:
    """Flatten a prefix of token ids and latents; latents are wrapped in BOI and EOI."""
    parts: list[Layout] = []
    length = 0

    def add_text(ids: Tensor) -> None:
        nonlocal length
        parts.append(Layout(ids, torch.zeros(len(ids), config.patch_width), *text_facts(len(ids), length)))
        length += len(ids)

    for segment in prefix:
        if segment.dim() == 1:
            add_text(segment)
            continue
        add_text(torch.tensor([config.boi_id]))
        patches = cut(segment.unsqueeze(0).float(), config.patch_side)[0]
        ids, size = torch.full((len(patches),), config.pad_id), len(patches)
        parts.append(Layout(ids, patches, torch.ones(size, dtype=torch.bool), torch.full((size,), length + size - 1)))
        length += size
        add_text(torch.tensor([config.eoi_id]))
    return Layout(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def pad_together(layouts: Sequence[Layout], config: ModelConfig) -> StepInputs:
    """Prefixes as one right-padded step; what padding writes is overwritten before anyone sees it."""
    num_rows, length = len(layouts), max(len(layout.ids) for layout in layouts)
    column = torch.arange(length).expand(num_rows, -1)
    ids, q_last = torch.full((num_rows, length), config.pad_id), column.clone()
    patches, is_image = torch.zeros(num_rows, length, config.patch_width), torch.zeros(num_rows, length, dtype=torch.bool)
    for index, layout in enumerate(layouts):
        size = len(layout.ids)
        ids[index, :size], patches[index, :size] = layout.ids, layout.patches
        is_image[index, :size], q_last[index, :size] = layout.is_image, layout.q_last
    return StepInputs(
        ids=ids,
        patches=patches,
        is_image=is_image,
        time=torch.zeros(num_rows),
        position=column.contiguous(),
        q_last=q_last,
        write_at=torch.zeros(num_rows, dtype=torch.long),
        read_at=torch.tensor([len(layout.ids) - 1 for layout in layouts]),
        num_keys=0,
    )


def stack(above: StepInputs, below: StepInputs) -> StepInputs:
    """Two groups of rows as one."""
    return StepInputs(*(torch.cat(pair) for pair in zip(above[:-1], below[:-1], strict=True)), num_keys=0)


def block_length(config: ModelConfig, image_shape: tuple[int, ...]) -> int:
    """Positions of an image with its two markers."""
    return image_shape[-2] * image_shape[-1] // config.patch_side**2 + 2


def columns_needed(config: ModelConfig, request: Request) -> int:
    """Cache columns a request may fill."""
    given = sum(len(part) if part.dim() == 1 else block_length(config, part.shape) for part in request.prefix)
    return given + request.max_new_tokens + request.max_images * block_length(config, request.image_shape)
