"""Attention in plain matrix products, for a CPU with bfloat16: what torch calls the math backend, forward and backward.

It keeps the scores in memory. The fused kernel never does, but on a CPU it gains nothing from bfloat16, for which there are
instructions for matrix products alone: it takes longer than in float32. For documents up to a few hundred positions the scores
are small, and a product, a softmax and a product are faster.

Legend: N documents or rows, S queries, T keys (S in training), H heads, K head dim.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from model.attention.visibility import Bias

# With more keys there is little gain, and the scores take the memory of a layer's weights.
MAX_KEYS = 768
# Scores at a time, in numbers: what stays in a core's cache.
MAX_SCORES = 2**20
# With fewer queries the fused kernel is faster, in float32.
MIN_QUERIES = 8


def math_is_faster(query: Tensor, key: Tensor) -> bool:
    """Whether `math_attention` takes less time than the fused kernel. query: [N, H, S, K]. key: [N, H, T, K]."""
    fast = query.device.type == "cpu" and query.dtype == torch.bfloat16
    return fast and query.shape[2] >= MIN_QUERIES and key.shape[2] <= MAX_KEYS


def math_attention(query: Tensor, key: Tensor, value: Tensor, bias: Bias | None) -> Tensor:
    """softmax(query @ key^T / sqrt(K) + bias) @ value: [N, H, S, K] as the query is, and in its precision.

    key, value: [N, H, T, K]. bias: [N, 1, S, T], None for all seen; it gets no gradient. Keeps N * H * S * T numbers for the
    backward pass.
    """
    dtype = query.dtype
    key, value = (part.to(dtype).contiguous() for part in (key, value))
    return _MathAttention.apply(query, key, value, bias and bias(dtype))  # type: ignore[return-value]


class _MathAttention(torch.autograd.Function):
    """Written out, because autograd would keep the scores beside the weights, and add up the bias's gradient.

    A few rows at a time, so that what is between two products stays in the processor's cache.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        # Weights are kept where a backward pass may want them, and otherwise overwritten piece by piece.
        kept, ctx.scale = any(ctx.needs_input_grad), query.shape[-1] ** -0.5
        output, pieces = query.new_empty(query.shape), _pieces(query, key)
        # One buffer for all pieces, so that it stays in the cache; the last piece may be shorter.
        buffer = _new_scores(query, key, pieces[0])
        weight = _new_scores(query, key, slice(len(query)) if kept else pieces[0])
        for piece in pieces:
            scores = buffer[: len(query[piece])]
            _product(query[piece], key[piece].transpose(2, 3), scores, ctx.scale, None if bias is None else bias[piece])
            piece_weight = weight[piece] if kept else weight[: len(scores)]
            # It sums in float32 and rounds its result alone, which the next product takes in half precision. So are the scores,
            # for on a CPU no product of halves gives more.
            torch.softmax(scores, -1, out=piece_weight)
            _product(piece_weight, value[piece], output[piece])
        if kept:
            ctx.save_for_backward(query, key, value, weight)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """The gradients of query, key and value; none of the bias."""
        query, key, value, weight = ctx.saved_tensors
        grad_output = gradients[0].contiguous()
        grad_query, grad_key, grad_value = (part.new_empty(part.shape) for part in (query, key, value))
        pieces = _pieces(query, key)
        buffer = _new_scores(query, key, pieces[0])
        for piece in pieces:
            _product(weight[piece].transpose(2, 3), grad_output[piece], grad_value[piece])
            grad_weight = buffer[: len(query[piece])]
            _product(grad_output[piece], value[piece].transpose(2, 3), grad_weight)
            grad_scores = torch._softmax_backward_data(grad_weight, weight[piece], -1, weight.dtype)
            _product(grad_scores, key[piece], grad_query[piece], ctx.scale)
            _product(grad_scores.transpose(2, 3), query[piece], grad_key[piece], ctx.scale)
        return grad_query, grad_key, grad_value, None


def _pieces(query: Tensor, key: Tensor) -> list[slice]:
    """All N, in pieces of at most MAX_SCORES numbers, or of one row."""
    num_scores = query.shape[1] * query.shape[2] * key.shape[2]
    size = max(1, MAX_SCORES // num_scores)
    return [slice(at, at + size) for at in range(0, len(query), size)]


def _new_scores(query: Tensor, key: Tensor, piece: slice) -> Tensor:
    """Room for the scores of a piece, [n, H, S, T]."""
    return query.new_empty(len(query[piece]), query.shape[1], query.shape[2], key.shape[2])


def _product(left: Tensor, right: Tensor, out: Tensor, scale: float = 1.0, bias: Tensor | None = None) -> None:
    """scale * ([n, H, a, b] times [n, H, b, c]) + bias into `out`, contiguous [n, H, a, c]. bias: [n, 1, a, c]."""
    flat = out.view(-1, *out.shape[2:])
    # Without a bias beta is 0, and then torch does not read what it is given to add, not even what is no number.
    added = flat if bias is None else bias.expand(out.shape).flatten(0, 1)
    torch.baddbmm(added, left.flatten(0, 1), right.flatten(0, 1), beta=bias is not None, alpha=scale, out=flat)
