"""How do packed rows attend on a GPU? FlexAttention, with the blocks that hold anything worked out from the intervals.

A block mask is made once a batch, outside whatever is compiled, and its shapes depend on B and L alone: nothing is compiled
again for another layout. On a CPU FlexAttention has no backward pass; spanwise attention serves there (see packed.py).

Legend: B rows, L row length, H heads, K head width, N blocks along a row.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from model.transformer import Attend

BLOCK = 128


def flexible_attention(first: Tensor, last: Tensor) -> Attend:
    """Attention of packed rows. first, last: int32 [B, L]."""
    mask = block_mask(first, last)
    kernel = _compiled() if first.is_cuda else flex_attention

    def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return kernel(query, key, value, block_mask=mask)

    return attend


def block_mask(first: Tensor, last: Tensor) -> BlockMask:
    """Which blocks of queries and keys are skipped, computed whole, or computed under the mask.

    A block of queries sees no key before its smallest `first` or after its largest `last`, and every key between its
    largest `first` and its smallest `last`.
    """
    length = first.shape[1]
    lowest, highest = _in_blocks(first, length, "amin"), _in_blocks(last, length, "amax")
    latest_first, earliest_last = _in_blocks(first, length, "amax"), _in_blocks(last, length, "amin")
    start = torch.arange(0, length, BLOCK, device=first.device)
    end = (start + BLOCK - 1).clamp_max(length - 1)
    touched = (end >= lowest.unsqueeze(-1)) & (start <= highest.unsqueeze(-1))
    # A last block cut short by the row's end is computed under the mask, which knows where the row ends.
    whole = (start >= latest_first.unsqueeze(-1)) & (start + BLOCK - 1 <= earliest_last.unsqueeze(-1))

    def visible(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key >= first[row, query]) & (key <= last[row, query])

    return BlockMask.from_kv_blocks(
        *_listed(touched & ~whole),
        *_listed(touched & whole),
        BLOCK_SIZE=BLOCK,
        mask_mod=visible,
        seq_lengths=(length, length),
    )


def _in_blocks(values: Tensor, length: int, how: str) -> Tensor:
    """[B, L] -> [B, N], the smallest or largest of each block; a last block cut short repeats the row's last value."""
    missing = -length % BLOCK
    padded = torch.cat([values, values[:, -1:].expand(-1, missing)], dim=1) if missing else values
    return getattr(padded.unflatten(1, (-1, BLOCK)), how)(-1)


def _listed(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """bool [B, N, N] -> how many blocks each block of queries has, and their numbers first among all; int32, one head."""
    order = chosen.to(torch.int8).argsort(dim=-1, descending=True, stable=True)
    return chosen.sum(-1, dtype=torch.int32).unsqueeze(1), order.to(torch.int32).unsqueeze(1)


@functools.cache
def _compiled() -> Callable[..., Any]:
    return torch.compile(flex_attention, dynamic=False)
