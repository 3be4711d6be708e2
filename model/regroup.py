"""How are positions sorted by where they go, and put back? Gathers whose gradients are gathers as well.

Torch's own backward of a gather adds up row after row, because an index may repeat; here none does.

Legend: N rows, M places, D numbers in a row.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def regroup(rows: Tensor, at: Tensor, back: Tensor) -> Tensor:
    """rows[at]. [N, D] -> [M, D].

    at, int64 [M], and back, int64 [N], are each other's inverse. The longer of the two holds the other's length, any number
    of times, for a row of zeros.
    """
    return _Regroup.apply(rows, at, back)  # type: ignore[return-value]


def inverse(at: Tensor, num_rows: int) -> Tensor:
    """int64 [num_rows]: where in `at` each row stands; `at` may hold num_rows (padding) any number of times."""
    back = torch.empty(num_rows + 1, dtype=torch.long, device=at.device)
    back[at] = torch.arange(len(at), device=at.device)
    return back[:-1]


class _Regroup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, at: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return _take(rows, at)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _take(gradients[0], ctx.saved_tensors[0]), None, None


def _take(rows: Tensor, at: Tensor) -> Tensor:
    """rows[at], where len(rows) is a row of zeros."""
    if len(at) > len(rows):
        rows = torch.cat([rows, rows.new_zeros(1, rows.shape[1])])
    return rows[at]
