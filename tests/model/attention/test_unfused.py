"""Does attention in products agree with brute force, in float32 exactly and in bfloat16 as well as torch's own kernel?"""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from model.attention import packed
from model.attention.unfused import unfused_attention
from model.attention.visibility import as_bias


def _case(rng: random.Random) -> tuple[list[Tensor], Tensor, Tensor]:
    """Queries, keys and values, a bias in which every query sees something, and weights for a loss; in float64."""
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    shape = (rng.randrange(1, 4), rng.randrange(1, 5), rng.randrange(1, 70), rng.choice((4, 16, 40)))
    inputs = [torch.randn(shape, generator=generator).double().requires_grad_() for _ in range(3)]
    length = shape[2]
    mask = torch.rand(shape[0], 1, length, length, generator=generator) < 0.6
    mask |= torch.eye(length, dtype=torch.bool)
    return inputs, as_bias(mask, torch.float64), torch.randn(shape, generator=generator).double()


def _results(attend, inputs: list[Tensor], weight: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """What it gives and its three gradients, in float64."""
    given = [part.detach().to(dtype).requires_grad_() for part in inputs]
    out = attend(*given)
    return [part.double() for part in (out, *torch.autograd.grad((out * weight.to(dtype)).sum(), given))]


def _by_definition(bias: Tensor):
    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return (query @ key.transpose(2, 3) / query.shape[-1] ** 0.5 + bias).softmax(-1) @ value

    return attend


def test_values_and_gradients_are_those_of_the_definition(rng: random.Random) -> None:
    for _ in range(100):
        inputs, bias, weight = _case(rng)
        wanted = _results(_by_definition(bias), inputs, weight, torch.float64)
        found = _results(lambda q, k, v, bias=bias: unfused_attention(q, k, v, bias), inputs, weight, torch.float32)
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_in_bfloat16_the_error_is_about_that_of_torchs_kernel(rng: random.Random) -> None:
    """Over many cases, relative to the largest value: the scores are rounded once more than in the fused kernel."""
    ours, theirs = torch.zeros(4), torch.zeros(4)
    for _ in range(40):
        inputs, bias, weight = _case(rng)
        inputs = [part.detach().bfloat16().double() for part in inputs]
        wanted = _results(_by_definition(bias), inputs, weight.bfloat16().double(), torch.float64)
        short = bias.bfloat16()
        for total, attend in (
            (ours, lambda q, k, v, bias=short: unfused_attention(q, k, v, bias)),
            (theirs, lambda q, k, v, bias=short: F.scaled_dot_product_attention(q, k, v, attn_mask=bias)),
        ):
            found = _results(attend, inputs, weight, torch.bfloat16)
            total += torch.tensor([float((a - b).norm() / b.norm().clamp_min(1)) for a, b in zip(found, wanted, strict=True)])
    assert bool((ours < 2 * theirs + 0.01).all()), (ours / 40, theirs / 40)
    assert bool((ours / 40 < 0.02).all()), ours / 40


@pytest.mark.parametrize("many_documents", [False, True])
def test_long_spans_and_float32_are_left_to_the_fused_kernel(many_documents: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One document a row, and several; a position sees its own document."""
    lengths = []
    monkeypatch.setattr(
        packed, "unfused_attention", lambda *parts: lengths.append(parts[0].shape[2]) or unfused_attention(*parts)
    )
    monkeypatch.setattr(packed, "MAX_UNFUSED_LENGTH", 40)
    sizes = (20, 60, 20) if many_documents else (60,)
    first = torch.cat([torch.full((size,), sum(sizes[:index])) for index, size in enumerate(sizes)]).unsqueeze(0)
    last = torch.cat([torch.full((size,), sum(sizes[: index + 1]) - 1) for index, size in enumerate(sizes)]).unsqueeze(0)
    query, key, value = torch.randn(3, 1, 2, sum(sizes), 16)
    attend = packed.packed_attention(first, last)
    wanted = attend(0, query, key, value)
    assert lengths == []
    found = attend(0, query.bfloat16(), key.bfloat16(), value.bfloat16())
    assert lengths == ([20] if many_documents else [])
    torch.testing.assert_close(found.float(), wanted, rtol=0.03, atol=0.03)
    monkeypatch.setattr(packed, "MAX_UNFUSED_LENGTH", 60)
    attend(0, query.bfloat16(), key.bfloat16(), value.bfloat16())
    assert max(lengths) == 60
