"""Who sees whom, one interval [kv_start, kv_end] per position; and attention under it in matrix products, for a CPU.

Transfusion (arXiv 2408.11039, Sec. 3.1): causal over the sequence, bidirectional among the patches of one image. In a packed
row both are one contiguous interval, read alike by training, cache and exported graph: `kv_start` is the document's start;
`kv_end` is the position itself for text, and the last patch of its image for a patch.

Math attention keeps the scores in memory. The fused kernel never does, but on a CPU it gains nothing from bfloat16, for which
there are instructions for matrix products alone: it takes longer than in float32. For documents up to a few hundred positions
the scores are small, and a product, a softmax and a product are faster.

Legend: N documents or rows, S queries, T keys (S in training), H heads, K head dim.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# With more keys there is little gain, and the scores take the memory of a layer's weights.
MAX_KEYS = 768
# Scores at a time, in numbers: what stays in a core's cache.
MAX_SCORES = 2**20
# With fewer queries the fused kernel is faster, in float32.
MIN_QUERIES = 8

# What to add to scores of a precision, 0 where seen and -inf where not.
Bias = Callable[[torch.dtype], Tensor]


def visible(kv_start: Tensor, kv_end: Tensor, num_keys: int) -> Tensor:
    """bool [N, S, num_keys]: whether each query sees each key.

    kv_start, kv_end: integer [N, S], the ends of each query's interval, both included.
    """
    key = torch.arange(num_keys, device=kv_start.device)
    return (key >= kv_start.unsqueeze(-1)) & (key <= kv_end.unsqueeze(-1))


def as_bias(mask: Tensor) -> Bias:
    """bool -> the bias of the same shape, made once for each precision that asks for it, and not once a layer."""

    @functools.cache
    def bias(dtype: torch.dtype) -> Tensor:
        return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, float("-inf"))

    return bias


def is_supported(query: Tensor, key: Tensor) -> bool:
    """Whether `math_attention` is the faster way. query: [N, H, S, K]. key: [N, H, T, K]."""
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
        scores = _scores(query, key, pieces[0])
        weight = _scores(query, key, slice(len(query)) if kept else pieces[0])
        for piece in pieces:
            some = scores[: len(query[piece])]
            _product(query[piece], key[piece].transpose(2, 3), some, ctx.scale, None if bias is None else bias[piece])
            of_piece = weight[piece] if kept else weight[: len(some)]
            torch.softmax(some, -1, out=of_piece)
            _product(of_piece, value[piece], output[piece])
        if kept:
            ctx.save_for_backward(query, key, value, weight)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """The gradients of query, key and value; none of the bias."""
        query, key, value, weight = ctx.saved_tensors
        of_output = gradients[0].contiguous()
        of_query, of_key, of_value = (part.new_empty(part.shape) for part in (query, key, value))
        pieces = _pieces(query, key)
        # One buffer for all pieces, so that it stays in the cache.
        buffer = _scores(query, key, pieces[0])
        for piece in pieces:
            _product(weight[piece].transpose(2, 3), of_output[piece], of_value[piece])
            of_weight = buffer[: len(query[piece])]
            _product(of_output[piece], value[piece].transpose(2, 3), of_weight)
            of_scores = torch._softmax_backward_data(of_weight, weight[piece], -1, weight.dtype)
            _product(of_scores, key[piece], of_query[piece], ctx.scale)
            _product(of_scores.transpose(2, 3), query[piece], of_key[piece], ctx.scale)
        return of_query, of_key, of_value, None


def _pieces(query: Tensor, key: Tensor) -> list[slice]:
    """All N, in pieces of at most MAX_SCORES numbers, or of one row."""
    num_scores = query.shape[1] * query.shape[2] * key.shape[2]
    size = max(1, MAX_SCORES // num_scores)
    return [slice(at, at + size) for at in range(0, len(query), size)]


def _scores(query: Tensor, key: Tensor, piece: slice) -> Tensor:
    """Room for the scores of a piece, [n, H, S, T]."""
    return query.new_empty(len(query[piece]), query.shape[1], query.shape[2], key.shape[2])


def _product(left: Tensor, right: Tensor, out: Tensor, scale: float = 1.0, bias: Tensor | None = None) -> None:
    """scale * ([n, H, a, b] times [n, H, b, c]) + bias into `out`, contiguous [n, H, a, c]. bias: [n, 1, a, c]."""
    flat = out.view(-1, *out.shape[2:])
    given = flat if bias is None else bias.expand(out.shape).flatten(0, 1)
    torch.baddbmm(given, left.flatten(0, 1), right.flatten(0, 1), beta=bias is not None, alpha=scale, out=flat)
