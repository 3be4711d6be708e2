"""Rows put into another order and back, by gathers whose gradients are gathers as well.

Torch's own backward of a gather adds up row after row, because an index may repeat; here none does.

Legend: N rows, M places, D numbers in a row.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def permute(rows: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
    """rows[order]. [N, D] -> [M, D].

    order, int64 [M], and inverse, int64 [N], are each other's inverse permutation. The longer of the two holds the other's
    length, any number of times, for a row of zeros.
    """
    return _Permute.apply(rows, order, inverse)  # type: ignore[return-value]


def inverse_permutation(order: Tensor, num_rows: int) -> Tensor:
    """int64 [num_rows]: where in `order` each row stands; `order` may hold num_rows (padding) any number of times."""
    inverse = torch.empty(num_rows + 1, dtype=torch.long, device=order.device)
    inverse[order] = torch.arange(len(order), device=order.device)
    return inverse[:-1]


class _Permute(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return _take(rows, order)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _take(gradients[0], ctx.saved_tensors[0]), None, None


def _take(rows: Tensor, order: Tensor) -> Tensor:
    """rows[order], where len(rows) is a row of zeros."""
    if len(order) > len(rows):
        rows = torch.cat([rows, rows.new_zeros(1, rows.shape[1])])
    return rows.index_select(0, order)
