"""Math attention agrees with brute force, in float32 closely and in bfloat16 as well as torch's own kernel."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from model.attention import cached, math, packed
from model.attention.math import math_attention
from model.attention.visibility import Bias, as_bias

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def _case(rng: random.Random) -> tuple[list[Tensor], Bias | None, Tensor]:
    """Queries, keys and values, a bias in which every query sees something or none, and weights for a loss; in float64."""
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    rows, heads, length, width = rng.randrange(1, 6), rng.randrange(1, 5), rng.randrange(1, 70), rng.choice((4, 16, 40))
    kv_length = length + rng.choice((0, rng.randrange(30)))
    shapes = [(rows, heads, size, width) for size in (length, kv_length, kv_length)]
    inputs = [torch.randn(shape, generator=generator).double().requires_grad_() for shape in shapes]
    mask = torch.rand(rows, 1, length, kv_length, generator=generator) < 0.6
    mask |= torch.eye(length, kv_length, dtype=torch.bool)
    bias = as_bias(mask) if rng.random() < 0.8 else None
    return inputs, bias, torch.randn(shapes[0], generator=generator).double()


def _results(attend: Attend, inputs: list[Tensor], weight: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """What it gives and its three gradients, in float64."""
    given = [part.detach().to(dtype).requires_grad_() for part in inputs]
    out = attend(*given)
    return [part.double() for part in (out, *torch.autograd.grad((out * weight.to(dtype)).sum(), given))]


def _by_definition(bias: Bias | None) -> Attend:
    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
        return (scores if bias is None else scores + bias(scores.dtype)).softmax(-1) @ value

    return attend


def _math(bias: Bias | None) -> Attend:
    return lambda query, key, value: math_attention(query, key, value, bias)


@pytest.mark.parametrize("max_scores", [1, 5_000, math.MAX_SCORES])
def test_values_and_gradients_are_those_of_the_definition(
    max_scores: int, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many rows are taken at a time; and without gradients the same values."""
    monkeypatch.setattr(math, "MAX_SCORES", max_scores)
    for _ in range(60):
        inputs, bias, weight = _case(rng)
        wanted = _results(_by_definition(bias), inputs, weight, torch.float64)
        found = _results(_math(bias), inputs, weight, torch.float32)
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        with torch.inference_mode():
            alone = _math(bias)(*(part.detach().float() for part in inputs))
        assert torch.equal(alone.double(), found[0])


def test_in_bfloat16_the_error_is_about_that_of_torchs_kernel(rng: random.Random) -> None:
    """Over many cases, relative to the largest value: the scores are rounded once more than in the fused kernel."""
    ours, theirs = torch.zeros(4), torch.zeros(4)
    for _ in range(40):
        inputs, bias, weight = _case(rng)
        inputs = [part.detach().bfloat16().double() for part in inputs]
        wanted = _results(_by_definition(bias), inputs, weight.bfloat16().double(), torch.float64)
        fused = partial(F.scaled_dot_product_attention, attn_mask=None if bias is None else bias(torch.bfloat16))
        for total, attend in ((ours, _math(bias)), (theirs, fused)):
            found = _results(attend, inputs, weight, torch.bfloat16)
            total += torch.tensor([float((a - b).norm() / b.norm().clamp_min(1)) for a, b in zip(found, wanted, strict=True)])
    assert bool((ours < 2 * theirs + 0.01).all()), (ours / 40, theirs / 40)
    assert bool((ours / 40 < 0.02).all()), ours / 40


@pytest.mark.parametrize("many_documents", [False, True])
def test_long_spans_and_float32_are_left_to_the_fused_kernel(many_documents: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One document a row, and several; a position sees its own document."""
    lengths = []
    monkeypatch.setattr(packed, "math_attention", lambda *parts: lengths.append(parts[0].shape[2]) or math_attention(*parts))
    monkeypatch.setattr(math, "MAX_KEYS", 40)
    sizes = (20, 60, 20) if many_documents else (60,)
    kv_start = torch.cat([torch.full((size,), sum(sizes[:index])) for index, size in enumerate(sizes)]).unsqueeze(0)
    kv_end = torch.cat([torch.full((size,), sum(sizes[: index + 1]) - 1) for index, size in enumerate(sizes)]).unsqueeze(0)
    query, key, value = torch.randn(3, 1, 2, sum(sizes), 16)
    attend = packed.packed_attention(kv_start, kv_end)
    wanted = attend(0, query, key, value)
    assert lengths == []
    found = attend(0, query.bfloat16(), key.bfloat16(), value.bfloat16())
    assert lengths == ([20] if many_documents else [])
    torch.testing.assert_close(found.float(), wanted, rtol=0.03, atol=0.03)
    monkeypatch.setattr(math, "MAX_KEYS", 60)
    attend(0, query.bfloat16(), key.bfloat16(), value.bfloat16())
    assert max(lengths) == 60


def test_a_step_in_bfloat16_is_that_of_the_fused_kernel_under_a_mask(rng: random.Random) -> None:
    """Rows that begin at different columns, some of whose queries see all keys, over a cache in float32."""
    for _ in range(30):
        rows, num_new, width = rng.randrange(1, 6), rng.randrange(math.MIN_QUERIES, 40), 16
        cache_position = torch.tensor([rng.randrange(20) for _ in range(rows)])
        whole = cache_position.unsqueeze(1) + num_new - 1
        causal = cache_position.unsqueeze(1) + torch.arange(num_new)
        kv_end = torch.where(torch.rand(rows, 1) < 0.5, whole, causal)
        query, key, value = torch.randn(3, rows, 2, num_new, width).bfloat16()
        caches = [[(torch.zeros(rows, 2, 80, width), torch.zeros(rows, 2, 80, width))] for _ in range(2)]
        caches[0][0][0].normal_()
        caches[0][0][1].normal_()
        for mine, other in zip(caches[0][0], caches[1][0], strict=True):
            other.copy_(mine)
        found = cached.grouped_attention(caches[0], cache_position, kv_end, torch.zeros(rows))(0, query, key, value)
        masked = cached.attention_under_mask(caches[1], cache_position, kv_end, int(kv_end.max()) + 1)
        wanted = masked(0, query.float(), key, value)
        torch.testing.assert_close(found.float(), wanted, rtol=0.03, atol=0.03)
        for mine, other in zip(caches[0][0], caches[1][0], strict=True):
            assert torch.equal(mine, other)
