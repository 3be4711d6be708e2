"""How do the positions of packed rows attend? Document by document on a CPU, in blocks on a GPU, or under one mask.

A packed row holds many documents, and most of its L x L scores are between two of them: computed, masked, thrown away. Here
the row is cut where no interval crosses, spans of like length are padded together, and each group is one fused call: at a
row of 256 positions with documents of 24 that is a tenth of the scores.

Legend: B rows, L row length, N spans of a group, S padded length of a group, H heads, K head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from model.attention.unfused import suits, unfused_attention
from model.attention.visibility import as_bias, visible
from model.regroup import inverse, regroup
from model.transformer import Attend

# Spans up to each of these lengths are padded to the longest among them. Few, because each group is a call of its own; close,
# because padding is work.
GROUP_LENGTHS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
# Sorting positions into spans and back costs about what a seventh more scores cost, measured on rows of 324.
WORTH_SORTING = 1.15


class Spans(NamedTuple):
    """Maximal runs of positions that see no further than themselves, in the flattened rows. int64 [num spans] each."""

    start: Tensor
    length: Tensor


class Group(NamedTuple):
    """Spans padded to one length.

    at: int64 [N * S], where each slot's position is among the flattened B * L; B * L itself (a row of zeros) for padding.
    bias: float32 [N, 1, S, S], 0 where seen and -inf where not. num_spans: N. length: S.
    """

    at: Tensor
    bias: Tensor
    num_spans: int
    length: int


def packed_attention(first: Tensor, last: Tensor) -> Attend:
    """What suits the device. first, last: integer [B, L]."""
    if first.is_cuda:
        from model.attention.flexible import flexible_attention

        return flexible_attention(first, last)
    if first.device.type != "cpu":
        return masked_attention(first, last)
    groups = group(first, last)
    num_scores = sum(part.num_spans * part.length**2 for part in groups)
    few_saved = first.numel() * first.shape[1] < WORTH_SORTING * num_scores
    return masked_attention(first, last) if few_saved else spanwise_attention(first, last, groups)


def masked_attention(first: Tensor, last: Tensor) -> Attend:
    """Attention of whole rows under one mask: the reference. first, last: integer [B, L]."""
    mask = visible(first, last, first.shape[1]).unsqueeze(1)
    if first.device.type != "cpu":
        return lambda layer, query, key, value: F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    bias = as_bias(mask, torch.float32)
    return lambda layer, query, key, value: _attend(query, key, value, bias)


def spanwise_attention(first: Tensor, last: Tensor, groups: Sequence[Group] | None = None) -> Attend:
    """The same, span by span; for a CPU, where the number of spans costs no recompilation.

    first, last: integer [B, L]. groups: `group` of these, where it has been called already.
    """
    groups = group(first, last) if groups is None else groups
    slots = torch.cat([part.at for part in groups])
    slot_of = inverse(slots, first.numel())
    sizes = [part.num_spans * part.length for part in groups]

    def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        num_rows, num_heads, length, width = query.shape
        rows = [part.transpose(1, 2).reshape(num_rows * length, -1) for part in (query, key, value)]
        parts = [regroup(part, slots, slot_of).split(sizes) for part in rows]
        mixed = [_attend_group(each, q, k, v, num_heads) for each, q, k, v in zip(groups, *parts, strict=True)]
        flat = regroup(torch.cat(mixed), slot_of, slots)
        return flat.view(num_rows, length, num_heads, width).transpose(1, 2)

    return attend


def spans(first: Tensor, last: Tensor) -> Spans:
    """Cut rows wherever no position before sees one after, and none after sees one before. first, last: integer [B, L]."""
    num_rows, length = first.shape
    reach = last.cummax(1).values
    origin = first.flip(1).cummin(1).values.flip(1)
    column = torch.arange(length, device=first.device)
    starts = torch.ones(num_rows, length, dtype=torch.bool, device=first.device)
    starts[:, 1:] = (reach[:, :-1] <= column[:-1]) & (origin[:, 1:] >= column[1:])
    start = starts.flatten().nonzero().squeeze(1)
    end = torch.cat([start[1:], torch.tensor([num_rows * length], device=first.device)])
    return Spans(start, end - start)


def group(first: Tensor, last: Tensor) -> list[Group]:
    """Every position of the rows in exactly one group. first, last: integer [B, L]."""
    num_rows, length = first.shape
    found = spans(first, last)
    row_start = torch.arange(num_rows, device=first.device).unsqueeze(1) * length
    flat_first = torch.cat([(first + row_start).flatten(), first.new_zeros(1)]).long()
    flat_last = torch.cat([(last + row_start).flatten(), last.new_zeros(1)]).long()
    of_span = torch.searchsorted(torch.tensor(GROUP_LENGTHS), found.length)
    return [
        _pad(Spans(*(part[of_span == index] for part in found)), flat_first, flat_last) for index in of_span.unique().tolist()
    ]


def _pad(found: Spans, first: Tensor, last: Tensor) -> Group:
    """To the longest. first, last: int64 [B * L + 1], intervals in flattened rows, the last entry for padding."""
    length = int(found.length.max())
    offset = torch.arange(length)
    at = torch.where(offset < found.length.unsqueeze(1), found.start.unsqueeze(1) + offset, len(first) - 1)
    mask = visible(first[at] - found.start.unsqueeze(1), last[at] - found.start.unsqueeze(1), length)
    # What padding computes is thrown away; it sees everything, because a softmax over nothing is not a number.
    mask |= (offset >= found.length.unsqueeze(1)).unsqueeze(-1)
    return Group(at.flatten(), as_bias(mask, torch.float32).unsqueeze(1), len(at), length)


def _attend_group(part: Group, query: Tensor, key: Tensor, value: Tensor, num_heads: int) -> Tensor:
    """[N * S, H * K] each -> [N * S, H * K]."""
    shape = (part.num_spans, part.length, num_heads, -1)
    query, key, value = (each.view(shape).transpose(1, 2) for each in (query, key, value))
    mixed = _attend(query, key, value, part.bias)
    return mixed.transpose(1, 2).reshape(part.num_spans * part.length, -1)


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """[N, H, S, K] each -> [N, H, S, K], in the precision of the inputs. bias: [N, 1, S, S]."""
    with torch.autocast("cpu", enabled=False):
        if suits(query, key):
            return unfused_attention(query, key, value, bias)
        # The fused kernel is a fifth slower in bfloat16 than in float32, forward and backward together.
        mixed = F.scaled_dot_product_attention(query.float(), key.float(), value.float(), attn_mask=bias)
        return mixed.to(query.dtype)
