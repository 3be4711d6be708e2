"""How does a CPU attend fastest in bfloat16? In matrix products, which it has instructions for, with the scores in memory.

The fused kernel never holds a matrix of scores, but on a CPU it gains nothing from bfloat16: it takes longer than in float32.
For spans up to a few hundred positions the scores are small, and a product, a softmax and a product are faster.

Legend: N spans, S length of a span, H heads, K head width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def unfused_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """softmax(query @ key^T / sqrt(K) + bias) @ value, [N, H, S, K] as each of the three, and in their precision.

    bias: [N, 1, S, S], 0 where seen and -inf where not; no gradient. Keeps N * H * S * S numbers for the backward pass.
    """
    num_spans, num_heads, length, width = query.shape
    # The width's root is mostly a power of two, so that scaling the queries beforehand rounds nothing.
    scaled = query * width**-0.5
    flat = [part.reshape(-1, length, width) for part in (scaled, key, value)]
    return _Attention.apply(*flat, bias.to(query.dtype)).view(num_spans, num_heads, length, width)  # type: ignore[union-attr]


class _Attention(torch.autograd.Function):
    """Written out, because autograd would keep the scores beside the weights, and add up the bias's gradient."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        scores = torch.bmm(query, key.transpose(1, 2))
        scores.view(len(bias), -1, *bias.shape[2:]).add_(bias)
        weight = torch.softmax(scores, -1)
        ctx.save_for_backward(query, key, value, weight)
        return torch.bmm(weight, value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query, key, value, weight = ctx.saved_tensors
        (of_mixed,) = gradients
        of_value = torch.bmm(weight.transpose(1, 2), of_mixed)
        of_weight = torch.bmm(of_mixed, value.transpose(1, 2))
        of_scores = torch._softmax_backward_data(of_weight, weight, -1, weight.dtype)
        return torch.bmm(of_scores, key), torch.bmm(of_scores.transpose(1, 2), query), of_value, None
