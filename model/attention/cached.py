"""How does a generation step attend to what its slots hold? Under one mask, or on a CPU over the keys that each row sees.

Rows of one pass see windows of very different widths: the twins of guidance see a begin token and their latent, where the
others see a prefix before it. On a CPU the intervals are at hand without waiting, so rows that write and see the same columns
get a call of their own over exactly these, without a mask where every query sees them all.

Legend: B rows, S positions a step, H heads, T cache length, K head width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from model.attention.unfused import suits, unfused_attention
from model.attention.visibility import as_bias, visible
from model.generation.engine import Cache
from model.transformer import Attend


class Run(NamedTuple):
    """Neighbouring rows that see as many columns.

    bias: [rows, 1, S, num_keys], 0 where seen and -inf where not; None where every query sees every key.
    """

    rows: slice
    num_keys: int
    bias: Tensor | None


def cached_attention(cache: Cache, write_at: Tensor, q_last: Tensor, num_keys: int) -> Attend:
    """What suits the device: write the new keys and values, then see every column up to q_last.

    write_at: int64 [B]. q_last: int64 [B, S]. num_keys: columns looked at; no column after it is visible or written.
    """
    if q_last.device.type == "cpu" and not torch.compiler.is_compiling():
        return attention_by_runs(cache, write_at, q_last)
    return attention_under_mask(cache, write_at, q_last, num_keys)


def attention_under_mask(cache: Cache, write_at: Tensor, q_last: Tensor, num_keys: int) -> Attend:
    """One call for all rows, whose shape depends on no value: for GPUs, and the reference."""
    mask = visible(torch.zeros_like(q_last), q_last, num_keys).unsqueeze(1)
    row = torch.arange(len(write_at), device=write_at.device).unsqueeze(1)
    column = write_at.unsqueeze(1) + torch.arange(q_last.shape[1], device=write_at.device)

    def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        keys, values = cache[layer]
        keys[row, :, column] = key.transpose(1, 2).to(keys.dtype)
        values[row, :, column] = value.transpose(1, 2).to(values.dtype)
        return F.scaled_dot_product_attention(query, keys[:, :, :num_keys], values[:, :, :num_keys], attn_mask=mask)

    return attend


def attention_by_runs(cache: Cache, write_at: Tensor, q_last: Tensor) -> Attend:
    """The same, run by run of like rows. Reads the intervals, so an accelerator would wait."""
    num_new, starts, looks = q_last.shape[1], write_at.tolist(), runs(q_last, cache[0][0].dtype)
    row, column = torch.arange(len(starts)).unsqueeze(1), write_at.unsqueeze(1) + torch.arange(num_new)
    together = _equal_neighbours(starts)

    def write(slots: Tensor, new: Tensor) -> None:
        if num_new == 1 and len(together) > 1:
            slots[row, :, column] = new.transpose(1, 2).to(slots.dtype)
            return
        for rows in together:
            at = starts[rows.start]
            slots[rows, :, at : at + num_new] = new[rows]

    def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        keys, values = cache[layer]
        write(keys, key)
        write(values, value)
        mixed = [_attend_run(run, query, keys, values) for run in looks]
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed)

    return attend


def runs(q_last: Tensor, dtype: torch.dtype) -> list[Run]:
    """Every row in exactly one; all in one where a row has a single query, for then a call costs more than its work."""
    widths = (q_last.amax(1) + 1).tolist()
    if q_last.shape[1] == 1:
        widths = [max(widths)] * len(widths)
    found = []
    for rows in _equal_neighbours(widths):
        last, num_keys = q_last[rows], widths[rows.start]
        bias = None
        if int(last.min()) + 1 < num_keys:
            bias = as_bias(visible(torch.zeros_like(last), last, num_keys), dtype).unsqueeze(1)
        found.append(Run(rows, num_keys, bias))
    return found


def _equal_neighbours(numbers: list[int]) -> list[slice]:
    """Where neighbours are equal, all of `numbers` in order."""
    starts = [at for at in range(len(numbers)) if at == 0 or numbers[at] != numbers[at - 1]]
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], len(numbers)], strict=True)]


def _attend_run(run: Run, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    query, key, value = query[run.rows], keys[run.rows, :, : run.num_keys], values[run.rows, :, : run.num_keys]
    if suits(query, key):
        return unfused_attention(query, key, value, run.bias)
    # In the cache's precision, which may be the higher one.
    mixed = F.scaled_dot_product_attention(query.to(key.dtype), key, value, attn_mask=run.bias)
    return mixed.to(query.dtype)
