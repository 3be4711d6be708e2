"""Attention of a generation step to what its slots hold: under one mask, or on a CPU over the keys that each row sees.

Rows of one pass see windows of very different widths: the unconditional rows of guidance see a begin token and their latent,
where the others see a prefix before it. On a CPU the intervals are at hand without waiting, so rows that write and see the same
columns get a call of their own over exactly these, without a mask where every query sees them all.

Legend: B rows, S positions a step, H heads, T cache length, K head dim.
"""

from __future__ import annotations

from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from model.attention.math import math_attention, math_is_faster
from model.attention.visibility import Bias, as_bias, visible
from model.step import Cache, StepInputs
from model.transformer import Attend


class RowGroup(NamedTuple):
    """Neighbouring rows that write the same columns, and see those before them and their own."""

    rows: slice
    start: int
    """First column written."""
    bias: Bias | None
    """[rows, 1, S, start + S]; None where every query sees every key."""
    is_denoising: bool
    """They feed a latent under way, so that no later step reads what they write."""


def cached_attention(cache: Cache, inputs: StepInputs) -> Attend:
    """The fastest form of: write the new keys and values, then see every column up to kv_end."""
    if inputs.kv_end.device.type == "cpu" and not torch.compiler.is_compiling():
        return grouped_attention(cache, inputs.cache_position, inputs.kv_end, inputs.time)
    return attention_under_mask(cache, inputs.cache_position, inputs.kv_end, inputs.kv_length)


def attention_under_mask(cache: Cache, cache_position: Tensor, kv_end: Tensor, kv_length: int) -> Attend:
    """One call for all rows, whose shape depends on no value: for GPUs, and the reference.

    cache_position: int64 [B]. kv_end: int64 [B, S]. kv_length: columns looked at; none after it is visible or written.
    """
    mask = visible(torch.zeros_like(kv_end), kv_end, kv_length).unsqueeze(1)
    row = torch.arange(len(cache_position), device=cache_position.device).unsqueeze(1)
    column = cache_position.unsqueeze(1) + torch.arange(kv_end.shape[1], device=cache_position.device)

    def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        k_cache, v_cache = cache[layer]
        # Written before they are read, so that new positions see one another; padding is written too, behind what a row needs.
        k_cache[row, :, column] = key.transpose(1, 2).to(k_cache.dtype)
        v_cache[row, :, column] = value.transpose(1, 2).to(v_cache.dtype)
        return _fused(query, k_cache[:, :, :kv_length], v_cache[:, :, :kv_length], mask)

    return attend


def grouped_attention(cache: Cache, cache_position: Tensor, kv_end: Tensor, time: Tensor) -> Attend:
    """The same, group by group of like rows. Reads the intervals, so an accelerator would wait.

    time: float32 [B], noise levels. What a noised latent would write may be left out, see model/step.py.
    """
    if kv_end.shape[1] == 1 and len(cache_position.unique()) > 1:
        # One token a row, as when all decode text: a row's work is less than a call of its own costs.
        return attention_under_mask(cache, cache_position, kv_end, int(kv_end.max()) + 1)
    groups = group_rows(cache_position, kv_end, time)

    def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        outputs = [_attend_group(group, query, key, value, *cache[layer]) for group in groups]
        # Joined in the order that the next product reads.
        return outputs[0] if len(outputs) == 1 else torch.cat([part.transpose(1, 2) for part in outputs]).transpose(1, 2)

    return attend


def group_rows(cache_position: Tensor, kv_end: Tensor, time: Tensor) -> list[RowGroup]:
    """Every row in exactly one group, in order."""
    groups, stop, num_new = [], 0, kv_end.shape[1]
    for (start, is_noised), alike in groupby(zip(cache_position.tolist(), (time > 0).tolist(), strict=True)):
        first, stop = stop, stop + len(list(alike))
        rows, end = slice(first, stop), kv_end[first:stop]
        # No mask where the query that sees least sees all: the fused kernel is then free to choose its fastest form.
        bias = None
        if int(end.min()) + 1 < start + num_new:
            bias = as_bias(visible(torch.zeros_like(end), end, start + num_new).unsqueeze(1))
        groups.append(RowGroup(rows, start, bias, is_noised))
    return groups


def _attend_group(group: RowGroup, query: Tensor, key: Tensor, value: Tensor, k_cache: Tensor, v_cache: Tensor) -> Tensor:
    """Of the group's rows, [rows, H, S, K]; all arguments are of all rows. key, value: the new ones, [B, H, S, K]."""
    query, key, value, k_cache, v_cache = (part[group.rows] for part in (query, key, value, k_cache, v_cache))
    end = group.start + query.shape[2]
    by_math = math_is_faster(query, k_cache[:, :, :end])
    if not (by_math and group.is_denoising):
        k_cache[:, :, group.start : end], v_cache[:, :, group.start : end] = key, value
    if not by_math:
        mask = None if group.bias is None else group.bias(k_cache.dtype)
        return _fused(query, k_cache[:, :, :end], v_cache[:, :, :end], mask)
    # Beside the new ones as they come: read back from the cache they would have been through another precision.
    keys, values = (
        torch.cat([cached[:, :, : group.start].to(query.dtype), new], 2) for cached, new in ((k_cache, key), (v_cache, value))
    )
    return math_attention(query, keys, values, group.bias)


def _fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """In the cache's precision, which may be higher than the query's."""
    return F.scaled_dot_product_attention(query.to(key.dtype), key, value, attn_mask=mask).to(query.dtype)
