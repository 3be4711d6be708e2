"""Do the ways to attend agree with brute force, forward and backward, on packed rows of any layout?"""

from __future__ import annotations

import random

import torch

from model.attention import Attend, masked_attention, spans, spanwise_attention
from tests.model.conftest import pack, random_document, tiny_config

NUM_LAYOUTS = 200


def _random_intervals(rng: random.Random) -> tuple[torch.Tensor, torch.Tensor]:
    """first and last of packed rows: several documents a row, some captions hidden from their image, padding at the end."""
    rows = [[random_document(rng, rng.randrange(3)) for _ in range(rng.randrange(1, 5))] for _ in range(rng.randrange(1, 4))]
    length = max(sum(map(len, row)) for row in rows) + rng.randrange(4)
    batch = pack(rows, tiny_config(), length)
    first, last = batch.first.clone(), batch.last
    for row in range(len(rows)):
        if rng.random() < 0.5:
            # As under caption dropout: an image and its marker see nothing before the marker.
            marker = (batch.ids[row] == 3).nonzero().flatten().tolist()
            for at in marker:
                first[row, at : int(last[row, at + 1]) + 1] = at
    return first, last


def _brute_force(first: torch.Tensor, last: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor):
    """Softmax over each query's interval, one at a time, in float64."""
    out = torch.zeros_like(query, dtype=torch.float64)
    query, key, value = query.double(), key.double(), value.double()
    for row in range(query.shape[0]):
        for at in range(query.shape[2]):
            seen = slice(int(first[row, at]), int(last[row, at]) + 1)
            scores = torch.einsum("hk,hnk->hn", query[row, :, at], key[row, :, seen]) / query.shape[-1] ** 0.5
            out[row, :, at] = torch.einsum("hn,hnk->hk", scores.softmax(-1), value[row, :, seen])
    return out


def _compare(attend: Attend, expected: torch.Tensor, inputs: list[torch.Tensor], gradients: tuple[torch.Tensor, ...]) -> None:
    out = attend(0, *inputs)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
    weight = torch.linspace(-1, 1, out.numel()).view_as(out)
    for got, wanted in zip(torch.autograd.grad((out * weight).sum(), inputs), gradients, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_both_ways_agree_with_brute_force_forward_and_backward(rng: random.Random) -> None:
    for number in range(NUM_LAYOUTS):
        first, last = _random_intervals(rng)
        shape = (*first.shape[:1], 2, first.shape[1], 4)
        generator = torch.Generator().manual_seed(number)
        inputs = [torch.randn(shape, generator=generator, requires_grad=True) for _ in range(3)]
        masked = masked_attention(first, last)(0, *inputs)
        weight = torch.linspace(-1, 1, masked.numel()).view_as(masked)
        gradients = torch.autograd.grad((masked * weight).sum(), inputs)
        if number < 20:
            brute = _brute_force(first, last, *inputs)
            for got, wanted in zip(gradients, torch.autograd.grad((brute * weight).sum(), inputs), strict=True):
                torch.testing.assert_close(got, wanted.float(), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(masked.double(), brute, rtol=1e-5, atol=1e-5)
        _compare(spanwise_attention(first, last), masked.detach().double(), inputs, gradients)


def test_rows_are_cut_only_where_nothing_sees_across(rng: random.Random) -> None:
    for _ in range(50):
        first, last = _random_intervals(rng)
        found, length = spans(first, last), first.shape[1]
        assert int(found.length.sum()) == first.numel()
        for start, size in zip(found.start.tolist(), found.length.tolist(), strict=True):
            row, begin = divmod(start, length)
            assert int(first[row, begin : begin + size].min()) >= begin
            assert int(last[row, begin : begin + size].max()) < begin + size
            # It could not have been cut once more.
            for cut in range(begin + 1, begin + size):
                assert int(first[row, cut : begin + size].min()) < cut or int(last[row, begin:cut].max()) >= cut
