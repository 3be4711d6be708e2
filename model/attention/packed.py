"""Packed-row attention: document by document on a CPU, by FlexAttention on a GPU, or under one mask.

A packed row holds many documents, and most of its L x L scores are between two of them: computed, masked, thrown away. Here
the row is cut where no interval crosses, documents of like length are padded together, and each group is one fused call: at a
row of 256 positions with documents of 24 that is a tenth of the scores.

Legend: B rows, L row length, N documents of a group, S padded length of a group, H heads, K head dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from model.attention.math import math_attention, math_is_faster
from model.attention.visibility import Bias, as_bias, visible
from model.permute import inverse_permutation, permute
from model.transformer import Attend

# What FlexAttention is compiled to: "flash" needs a Hopper or Blackwell GPU and the package flash-attn 4 (flash_attn.cute).
FlexBackend = Literal["triton", "flash"]

# Documents up to each of these lengths are padded to the longest among them. Few, because each group is a call of its own;
# close, because padding is work.
GROUP_LENGTHS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
# Sorting positions into documents and back costs about what a seventh more scores cost, measured on rows of 324.
WORTH_SORTING = 1.15


class Documents(NamedTuple):
    """Maximal runs of positions that see no further than themselves, in the flattened rows. int64 [num documents] each."""

    start: Tensor
    length: Tensor


class Group(NamedTuple):
    """Documents padded to one length."""

    positions: Tensor
    """int64 [N * S], indices into the flattened [B * L]; B * L itself, which `permute` reads as a row of zeros, for padding."""
    bias: Bias
    """[N, 1, S, S]."""
    num_documents: int
    """N."""
    length: int
    """S."""


def packed_attention(kv_start: Tensor, kv_end: Tensor, flex_backend: FlexBackend = "triton") -> Attend:
    """The form that is fastest on the device. kv_start, kv_end: integer [B, L]. flex_backend: on a GPU."""
    # Where no gradient is wanted every batch may be of another size, and FlexAttention is compiled for each: eight, and then
    # torch gives up and computes all scores. Training's rows are always [B, L].
    if kv_start.is_cuda and torch.is_grad_enabled():
        # Imported where it is used: it brings a compiler with it.
        from model.attention.flex import packed_flex_attention

        return packed_flex_attention(kv_start, kv_end, flex_backend)
    if kv_start.device.type != "cpu":
        return masked_attention(kv_start, kv_end)
    groups = group_documents(kv_start, kv_end)
    num_scores = sum(part.num_documents * part.length**2 for part in groups)
    few_saved = kv_start.numel() * kv_start.shape[1] < WORTH_SORTING * num_scores
    return masked_attention(kv_start, kv_end) if few_saved else document_attention(kv_start, kv_end, groups)


def masked_attention(kv_start: Tensor, kv_end: Tensor) -> Attend:
    """Attention of whole rows under one mask: the reference. kv_start, kv_end: integer [B, L]."""
    mask = visible(kv_start, kv_end, kv_start.shape[1]).unsqueeze(1)
    if kv_start.device.type != "cpu":
        return lambda layer, query, key, value: F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    bias = as_bias(mask)
    return lambda layer, query, key, value: _attend(query, key, value, bias)


def document_attention(kv_start: Tensor, kv_end: Tensor, groups: Sequence[Group] | None = None) -> Attend:
    """The same, document by document; for a CPU, where the number of documents costs no recompilation.

    kv_start, kv_end: integer [B, L]. groups: `group_documents` of these, where it has been called already.
    """
    groups = group_documents(kv_start, kv_end) if groups is None else groups
    order = torch.cat([part.positions for part in groups])
    inverse = inverse_permutation(order, kv_start.numel())
    sizes = [part.num_documents * part.length for part in groups]

    def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        num_rows, num_heads, length, head_dim = query.shape
        rows = [part.transpose(1, 2).reshape(num_rows * length, -1) for part in (query, key, value)]
        parts = [permute(part, order, inverse).split(sizes) for part in rows]
        outputs = [_attend_group(each, q, k, v, num_heads) for each, q, k, v in zip(groups, *parts, strict=True)]
        flat = permute(torch.cat(outputs), inverse, order)
        return flat.view(num_rows, length, num_heads, head_dim).transpose(1, 2)

    return attend


def find_documents(kv_start: Tensor, kv_end: Tensor) -> Documents:
    """Cut rows wherever no position before sees one after, and none after sees one before. kv_start, kv_end: integer [B, L]."""
    num_rows, length = kv_start.shape
    # The furthest that anything up to here sees, and the earliest that anything from here on does.
    latest_end = kv_end.cummax(1).values
    earliest_start = kv_start.flip(1).cummin(1).values.flip(1)
    column = torch.arange(length, device=kv_start.device)
    starts = torch.ones(num_rows, length, dtype=torch.bool, device=kv_start.device)
    starts[:, 1:] = (latest_end[:, :-1] <= column[:-1]) & (earliest_start[:, 1:] >= column[1:])
    start = starts.flatten().nonzero().squeeze(1)
    end = torch.cat([start[1:], torch.tensor([num_rows * length], device=kv_start.device)])
    return Documents(start, end - start)


def group_documents(kv_start: Tensor, kv_end: Tensor) -> list[Group]:
    """Every position of the rows in exactly one group. kv_start, kv_end: integer [B, L]."""
    num_rows, length = kv_start.shape
    found = find_documents(kv_start, kv_end)
    # Intervals in the flattened rows, with an entry behind them for padding.
    row_start = torch.arange(num_rows, device=kv_start.device).unsqueeze(1) * length
    flat_start = torch.cat([(kv_start + row_start).flatten(), kv_start.new_zeros(1)]).long()
    flat_end = torch.cat([(kv_end + row_start).flatten(), kv_end.new_zeros(1)]).long()
    of_document = torch.searchsorted(torch.tensor(GROUP_LENGTHS), found.length)
    return [
        _pad(Documents(*(part[of_document == index] for part in found)), flat_start, flat_end)
        for index in of_document.unique().tolist()
    ]


def _pad(found: Documents, flat_start: Tensor, flat_end: Tensor) -> Group:
    """Documents padded to the longest of them.

    flat_start, flat_end: int64 [B * L + 1], intervals in flattened rows, the last entry for padding.
    """
    length = int(found.length.max())
    offset, start = torch.arange(length), found.start.unsqueeze(1)
    is_padding = offset >= found.length.unsqueeze(1)
    positions = torch.where(is_padding, len(flat_start) - 1, start + offset)
    mask = visible(flat_start[positions] - start, flat_end[positions] - start, length)
    # What padding computes is thrown away; it sees everything, because a softmax over nothing is not a number.
    mask |= is_padding.unsqueeze(-1)
    return Group(positions.flatten(), as_bias(mask.unsqueeze(1)), len(positions), length)


def _attend_group(part: Group, query: Tensor, key: Tensor, value: Tensor, num_heads: int) -> Tensor:
    """[N * S, H * K] each -> [N * S, H * K]."""
    shape = (part.num_documents, part.length, num_heads, -1)
    query, key, value = (each.view(shape).transpose(1, 2) for each in (query, key, value))
    output = _attend(query, key, value, part.bias)
    return output.transpose(1, 2).reshape(part.num_documents * part.length, -1)


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Bias) -> Tensor:
    """[N, H, S, K] each -> [N, H, S, K], in the precision of the inputs. bias: [N, 1, S, S]."""
    with torch.autocast("cpu", enabled=False):
        if math_is_faster(query, key):
            return math_attention(query, key, value, bias)
        # The fused kernel is a fifth slower in bfloat16 than in float32, forward and backward together.
        output = F.scaled_dot_product_attention(query.float(), key.float(), value.float(), attn_mask=bias(torch.float32))
        return output.to(query.dtype)
