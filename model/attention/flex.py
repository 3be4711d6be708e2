"""Packed-row attention on a GPU, by FlexAttention, with the blocks that hold anything worked out from the intervals.

A block mask is made once a batch, outside whatever is compiled, and its shapes depend on B and L alone: nothing is compiled
again for another layout. On a CPU FlexAttention has no backward pass; document attention serves there (see packed.py).

Legend: B rows, L row length, H heads, K head dim, N blocks along a row.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from model.transformer import Attend

BLOCK = 128


def packed_flex_attention(kv_start: Tensor, kv_end: Tensor, backend: Literal["triton", "flash"] = "triton") -> Attend:
    """Attention of packed rows. kv_start, kv_end: int32 [B, L]. backend: of the compiled kernel."""
    mask = block_mask(kv_start, kv_end)
    # Uncompiled it holds all scores, which only tests on a CPU can afford.
    kernel = _compiled() if kv_start.is_cuda else flex_attention
    # Torch's own choice among its Triton kernels where nothing is asked for.
    options: Any = {"BACKEND": "FLASH"} if backend == "flash" else None

    def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return kernel(query, key, value, block_mask=mask, kernel_options=options)

    return attend


def block_mask(kv_start: Tensor, kv_end: Tensor) -> BlockMask:
    """Which blocks of queries and keys are skipped, computed whole, or computed under the mask.

    A block of queries sees no key before its smallest `kv_start` or after its largest `kv_end`, and every key between its
    largest `kv_start` and its smallest `kv_end`.
    """
    length = kv_start.shape[1]
    earliest_start, latest_start = _in_blocks(kv_start).aminmax(dim=-1)
    earliest_end, latest_end = _in_blocks(kv_end).aminmax(dim=-1)
    # The first and the last key of each block.
    start = torch.arange(0, length, BLOCK, device=kv_start.device)
    end = (start + BLOCK - 1).clamp_max(length - 1)
    # Conservative where a block holds several documents: what lies between them is left to the mask.
    touched = (end >= earliest_start.unsqueeze(-1)) & (start <= latest_end.unsqueeze(-1))
    # A last block cut short by the row's end is computed under the mask, which knows where the row ends.
    whole = (start >= latest_start.unsqueeze(-1)) & (start + BLOCK - 1 <= earliest_end.unsqueeze(-1))

    def mask_mod(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key >= kv_start[row, query]) & (key <= kv_end[row, query])

    return BlockMask.from_kv_blocks(
        *_num_and_indices(touched & ~whole),
        *_num_and_indices(touched & whole),
        BLOCK_SIZE=BLOCK,
        mask_mod=mask_mod,
        seq_lengths=(length, length),
    )


def _in_blocks(values: Tensor) -> Tensor:
    """[B, L] -> [B, N, BLOCK]; a last block cut short repeats the row's last value, which changes no minimum or maximum."""
    missing = -values.shape[1] % BLOCK
    return torch.cat([values, values[:, -1:].expand(-1, missing)], dim=1).unflatten(1, (-1, BLOCK))


def _num_and_indices(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """bool [B, N, N] -> how many blocks of keys each block of queries has, [B, 1, N], and their numbers, [B, 1, N, N], int32.

    The numbers of the others stand behind them, unread: the shape may not depend on values.
    """
    order = chosen.to(torch.int8).argsort(dim=-1, descending=True, stable=True)
    return chosen.sum(-1, dtype=torch.int32).unsqueeze(1), order.to(torch.int32).unsqueeze(1)


@functools.cache
def _compiled() -> Callable[..., Any]:
    return torch.compile(flex_attention, dynamic=False)
