"""What does a row feed in one pass? A block of tokens and patches; and how blocks of many rows become one step's inputs.

Blocks of different length are padded on the right: a row's padding is written beyond its end, sees no more than its own
columns, and is overwritten before anyone sees it.

Legend: B rows, S positions a step, n positions of a block, p patches of a latent, W numbers in a modality's patch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from model.config import ModelConfig
from model.generation.engine import StepInputs

# The active cache window grows in these strides, so that an engine meets few shapes.
WINDOW_STRIDE = 32


class Span(NamedTuple):
    """A latent inside a block. start: its first position. patches: float32 [p, W]. grid: patches along each axis."""

    start: int
    modality: int
    patches: Tensor
    grid: tuple[int, ...]

    @property
    def stop(self) -> int:
        return self.start + len(self.patches)


class Block(NamedTuple):
    """ids: int64 [n], anything where a patch stands. last_token: the id that ends the block; None where a patch does.

    time: noise level of the patches.
    """

    ids: Tensor
    last_token: int | None
    spans: tuple[Span, ...] = ()
    time: float = 0.0

    @property
    def size(self) -> int:
        """Positions: n."""
        return self.ids.numel()


def token_block(token: int) -> Block:
    """One text token."""
    return Block(torch.tensor([token]), token)


def step_inputs(config: ModelConfig, blocks: Sequence[Block | None], write_at: Sequence[int], max_length: int) -> StepInputs:
    """The inputs of one step. blocks: of each row; None where it only rides along. write_at: first column each row writes."""
    sizes = [block.size if block else 0 for block in blocks]
    length, start = max(sizes), torch.tensor(write_at)
    column = start.unsqueeze(1) + torch.arange(length)
    kind, last = torch.zeros_like(column), column.clone()
    spans = [(row, span) for row, block in enumerate(blocks) if block for span in block.spans]
    # Latents stay where they are: on an accelerator, nothing waits for a copy.
    patches = torch.zeros(len(blocks), length, config.patch_width, device=_device(span for _, span in spans))
    for row, span in spans:
        at = slice(span.start, span.stop)
        patches[row, at, : span.patches.shape[1]] = span.patches
        kind[row, at] = span.modality + 1
        last[row, at] = write_at[row] + span.stop - 1
    return StepInputs(
        ids=_padded(blocks, sizes, config.pad_id),
        patches=patches,
        kind=kind,
        time=torch.tensor([block.time if block else 0.0 for block in blocks]),
        position=column,
        q_last=last,
        write_at=start,
        read_at=torch.tensor([max(size - 1, 0) for size in sizes]),
        num_keys=min(-(-(max(write_at) + length) // WINDOW_STRIDE) * WINDOW_STRIDE, max_length),
        grids=tuple(block.spans[0].grid if block and block.spans else () for block in blocks),
    )


def _padded(blocks: Sequence[Block | None], sizes: Sequence[int], pad_id: int) -> Tensor:
    """int64 [B, S]."""
    if min(sizes) == max(sizes):
        return torch.stack([block.ids for block in blocks if block])
    empty = torch.zeros(0, dtype=torch.long)
    return pad_sequence([block.ids if block else empty for block in blocks], batch_first=True, padding_value=pad_id)


def _device(spans: Iterable[Span]) -> torch.device:
    """The accelerator that some of the latents are on, if any."""
    devices = {span.patches.device for span in spans}
    return next((device for device in devices if device.type != "cpu"), torch.device("cpu"))
