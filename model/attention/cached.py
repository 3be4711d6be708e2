"""How does a generation step attend to what its slots hold? Under one mask, or on a CPU over the keys that each row sees.

Rows of one pass see windows of very different widths: the twins of guidance see a begin token and their latent, where the
others see a prefix before it. On a CPU the intervals are at hand without waiting, so rows that write and see the same columns
get a call of their own over exactly these, without a mask where every query sees them all.

Legend: B rows, S positions a step, H heads, T cache length, K head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from model.attention.unfused import suits, unfused_attention
from model.attention.visibility import as_bias, visible
from model.generation.engine import Cache, StepInputs
from model.transformer import Attend


class Run(NamedTuple):
    """Neighbouring rows that write the same columns, and see those before them and their own.

    start: first column written. bias: [rows, 1, S, start + S], 0 where seen and -inf where not; None where every query sees
    every key. is_passing: whether no later step reads what they write, for it is a latent under way.
    """

    rows: slice
    start: int
    bias: Tensor | None
    is_passing: bool


def cached_attention(cache: Cache, inputs: StepInputs) -> Attend:
    """What suits the device: write the new keys and values, then see every column up to q_last."""
    if inputs.q_last.device.type == "cpu" and not torch.compiler.is_compiling():
        return attention_by_runs(cache, inputs.write_at, inputs.q_last, inputs.time)
    return attention_under_mask(cache, inputs.write_at, inputs.q_last, inputs.num_keys)


def attention_under_mask(cache: Cache, write_at: Tensor, q_last: Tensor, num_keys: int) -> Attend:
    """One call for all rows, whose shape depends on no value: for GPUs, and the reference.

    write_at: int64 [B]. q_last: int64 [B, S]. num_keys: columns looked at; no column after it is visible or written.
    """
    mask = visible(torch.zeros_like(q_last), q_last, num_keys).unsqueeze(1)
    row = torch.arange(len(write_at), device=write_at.device).unsqueeze(1)
    column = write_at.unsqueeze(1) + torch.arange(q_last.shape[1], device=write_at.device)

    def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        keys, values = cache[layer]
        keys[row, :, column] = key.transpose(1, 2).to(keys.dtype)
        values[row, :, column] = value.transpose(1, 2).to(values.dtype)
        return _fused(query, keys[:, :, :num_keys], values[:, :, :num_keys], mask)

    return attend


def attention_by_runs(cache: Cache, write_at: Tensor, q_last: Tensor, time: Tensor) -> Attend:
    """The same, run by run of like rows. Reads the intervals, so an accelerator would wait.

    time: float32 [B], noise levels. What a noised latent would write may be left out, see engine.py.
    """
    if q_last.shape[1] == 1 and len(write_at.unique()) > 1:
        # A single query's work is less than a call costs.
        return attention_under_mask(cache, write_at, q_last, int(q_last.max()) + 1)
    found = runs(write_at, q_last, time, cache[0][0].dtype)

    def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        mixed = [_attend_run(run, query, key, value, *cache[layer]) for run in found]
        # Joined in the order that the next product reads.
        return mixed[0] if len(mixed) == 1 else torch.cat([part.transpose(1, 2) for part in mixed]).transpose(1, 2)

    return attend


def runs(write_at: Tensor, q_last: Tensor, time: Tensor, dtype: torch.dtype) -> list[Run]:
    """Every row in exactly one. dtype: of their biases."""
    starts, is_noised, num_new = write_at.tolist(), (time > 0).tolist(), q_last.shape[1]
    found = []
    for rows in _equal_neighbours(list(zip(starts, is_noised, strict=True))):
        last, start = q_last[rows], starts[rows.start]
        bias = None
        if int(last.min()) + 1 < start + num_new:
            bias = as_bias(visible(torch.zeros_like(last), last, start + num_new), dtype).unsqueeze(1)
        found.append(Run(rows, start, bias, is_noised[rows.start]))
    return found


def _equal_neighbours(values: Sequence[object]) -> list[slice]:
    """Where neighbours are equal, all of `values` in order."""
    starts = [at for at in range(len(values)) if at == 0 or values[at] != values[at - 1]]
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], len(values)], strict=True)]


def _attend_run(run: Run, query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """[rows, H, S, K]. query, key, value: of all rows, the new ones. keys, values: the cache's."""
    query, key, value, keys, values = (part[run.rows] for part in (query, key, value, keys, values))
    end = run.start + query.shape[2]
    in_products = suits(query, keys[:, :, :end])
    if not (in_products and run.is_passing):
        keys[:, :, run.start : end], values[:, :, run.start : end] = key, value
    if not in_products:
        return _fused(query, keys[:, :, :end], values[:, :, :end], run.bias)
    # The new ones as they come: the way through the cache would be there and back between two precisions.
    before = [slots[:, :, : run.start].to(query.dtype) for slots in (keys, values)]
    return unfused_attention(query, torch.cat([before[0], key], 2), torch.cat([before[1], value], 2), run.bias)


def _fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """In the cache's precision, which may be higher than the query's."""
    return F.scaled_dot_product_attention(query.to(key.dtype), key, value, attn_mask=mask).to(query.dtype)
