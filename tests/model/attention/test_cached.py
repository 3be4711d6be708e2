"""The ways to attend to a cache agree with brute force, and leave the same behind, for rows in any phase."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from model.attention import math
from model.attention.cached import attention_under_mask, group_rows, grouped_attention
from model.step import Cache

HEADS, WIDTH, COLUMNS = 2, 4, 30


def _random_rows(rng: random.Random) -> tuple[Tensor, Tensor]:
    """cache_position [B] and kv_end [B, S]: neighbours often alike, text and latents mixed."""
    num_new = rng.choice([1, 1, rng.randrange(2, 7)])
    rows: list[tuple[int, bool]] = []
    for _ in range(rng.randrange(1, 4)):
        rows += [(rng.randrange(COLUMNS - num_new), rng.random() < 0.5)] * rng.randrange(1, 4)
    cache_position = torch.tensor([at for at, _ in rows])
    kv_end = cache_position.unsqueeze(1) + torch.arange(num_new)
    for row, (at, is_latent) in enumerate(rows):
        if is_latent:
            kv_end[row] = at + num_new - 1
    return cache_position, kv_end


def _brute_force(cache: Cache, new: list[Tensor], cache_position: Tensor, kv_end: Tensor) -> Tensor:
    """In float64, query by query; the cache is left as it is."""
    query, key, value = (part.double() for part in new)
    out = torch.empty_like(query)
    for row, at in enumerate(cache_position.tolist()):
        keys, values = (part[row].double().clone() for part in cache[0])
        keys[:, at : at + key.shape[2]], values[:, at : at + key.shape[2]] = key[row], value[row]
        for number, last in enumerate(kv_end[row].tolist()):
            scores = (keys[:, : last + 1] @ query[row, :, number].unsqueeze(-1)).squeeze(-1) / WIDTH**0.5
            out[row, :, number] = (scores.softmax(-1).unsqueeze(-1) * values[:, : last + 1]).sum(1)
    return out


def test_both_ways_are_brute_force_and_write_alike(rng: random.Random) -> None:
    torch.manual_seed(rng.randrange(2**31))
    for _ in range(200):
        cache_position, kv_end = _random_rows(rng)
        num_rows, num_new = kv_end.shape
        new = [torch.randn(num_rows, HEADS, num_new, WIDTH) for _ in range(3)]
        cache = [(torch.randn(num_rows, HEADS, COLUMNS, WIDTH), torch.randn(num_rows, HEADS, COLUMNS, WIDTH))]
        other = [(cache[0][0].clone(), cache[0][1].clone())]
        expected = _brute_force(cache, new, cache_position, kv_end)
        by_groups = grouped_attention(cache, cache_position, kv_end, torch.zeros(len(cache_position)))(0, *new)
        under_mask = attention_under_mask(other, cache_position, kv_end, int(kv_end.max()) + 1)(0, *new)
        torch.testing.assert_close(by_groups.double(), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(under_mask.double(), expected, rtol=1e-5, atol=1e-5)
        for one, another in zip(cache[0], other[0], strict=True):
            assert torch.equal(one, another)


def test_a_cache_may_be_more_precise_than_what_is_written(rng: random.Random) -> None:
    torch.manual_seed(rng.randrange(2**31))
    cache_position, kv_end = _random_rows(rng)
    new = [torch.randn(len(cache_position), HEADS, kv_end.shape[1], WIDTH).bfloat16() for _ in range(3)]
    cache = [(torch.randn(len(cache_position), HEADS, COLUMNS, WIDTH), torch.randn(len(cache_position), HEADS, COLUMNS, WIDTH))]
    expected = _brute_force(cache, new, cache_position, kv_end)
    out = grouped_attention(cache, cache_position, kv_end, torch.zeros(len(cache_position)))(0, *new)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, expected.float().bfloat16()) or (out.double() - expected).abs().max() < 0.02


def test_rows_under_guidance_are_two_groups_without_a_mask() -> None:
    cache_position = torch.tensor([25] * 3 + [1] * 3)
    found = group_rows(cache_position, (cache_position + 15).unsqueeze(1).expand(-1, 16), torch.full((6,), 0.5))
    assert [group[:3] for group in found] == [(slice(0, 3), 25, None), (slice(3, 6), 1, None)]


def test_a_latent_under_way_sees_itself_and_is_not_written(rng: random.Random) -> None:
    """In bfloat16 on a CPU; its clean neighbours are, and what all see is what they would see if it were."""
    torch.manual_seed(rng.randrange(2**31))
    for _ in range(30):
        num_new, num_rows = rng.randrange(math.MIN_QUERIES, 20), rng.randrange(1, 6)
        cache_position = torch.randint(COLUMNS - num_new, (num_rows,))
        kv_end = (cache_position + num_new - 1).unsqueeze(1).expand(-1, num_new)
        time = torch.rand(num_rows) * torch.randint(2, (num_rows,))
        new = [torch.randn(num_rows, HEADS, num_new, WIDTH).bfloat16() for _ in range(3)]
        cache = [(torch.randn(num_rows, HEADS, COLUMNS, WIDTH), torch.randn(num_rows, HEADS, COLUMNS, WIDTH))]
        before, expected = [part.clone() for part in cache[0]], _brute_force(cache, new, cache_position, kv_end)
        out = grouped_attention(cache, cache_position, kv_end, time)(0, *new)
        torch.testing.assert_close(out.double(), expected, rtol=0.03, atol=0.03)
        for part, was, given in zip(cache[0], before, new[1:], strict=True):
            for row, at in enumerate(cache_position.tolist()):
                if time[row] == 0:
                    was[row, :, at : at + num_new] = given[row]
            assert torch.equal(part, was)
