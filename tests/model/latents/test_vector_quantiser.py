"""The nearest code is found, both distances move what they should, and unused codes come back."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from model.latents.vector_quantiser import look_up, nearest_codes, perplexity, quantise, restart_unused


def _drawn(seed: int, num_codes: int = 50) -> tuple[torch.Tensor, torch.Tensor]:
    print(f"seed {seed}")
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 8, 5, 4, generator=generator), torch.randn(num_codes, 8, generator=generator)


def test_it_is_the_nearest_code() -> None:
    latents, codebook = _drawn(seed=1)
    distances = torch.cdist(latents.movedim(1, -1).reshape(-1, 8).double(), codebook.double())
    assert torch.equal(nearest_codes(latents, codebook).flatten(), distances.argmin(1))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(nearest_codes(latents, codebook).flatten(), distances.argmin(1))
    codes = torch.randint(0, 50, (2, 3, 4))
    assert torch.equal(nearest_codes(look_up(codes, codebook), codebook), codes)


def test_gradients_go_straight_through_and_to_their_own_sides() -> None:
    latents, codebook = (tensor.requires_grad_() for tensor in _drawn(seed=2))
    found = quantise(latents, codebook)
    vectors = codebook[found.codes].movedim(-1, 1)
    torch.testing.assert_close(found.latents, vectors)
    upstream = torch.randn_like(latents)
    through = torch.autograd.grad(found.latents, (latents, codebook), upstream, allow_unused=True, retain_graph=True)
    assert torch.equal(through[0], upstream) and through[1] is None

    of_latents, of_codes = torch.autograd.grad(found.commitment, (latents, codebook), allow_unused=True, retain_graph=True)
    assert of_codes is None
    torch.testing.assert_close(of_latents, 2 * (latents - vectors) / latents.numel())
    of_latents, of_codes = torch.autograd.grad(found.codebook, (latents, codebook), allow_unused=True)
    assert of_latents is None
    expected = torch.zeros_like(codebook).index_add_(
        0, found.codes.flatten(), (2 * (vectors - latents) / latents.numel()).movedim(1, -1).reshape(-1, 8)
    )
    torch.testing.assert_close(of_codes, expected)
    assert found.commitment.item() == found.codebook.item() == F.mse_loss(vectors, latents).item()


def test_perplexity_counts_codes_in_use() -> None:
    assert math.isclose(perplexity(torch.tensor([3, 3, 0, 3, 3])), 4, rel_tol=1e-9)
    assert math.isclose(perplexity(torch.tensor([7, 0, 0])), 1, rel_tol=1e-9)
    assert perplexity(torch.tensor([9, 1])) < 2


def test_unused_codes_come_back_where_latents_are() -> None:
    latents, codebook = _drawn(seed=3, num_codes=100)
    before, counts = codebook.clone(), torch.ones(100, dtype=torch.int64)
    counts[20:] = 0
    moved = restart_unused(codebook, counts, latents, torch.Generator().manual_seed(4))
    # There are 60 vectors for 80 unused codes, and each is given once.
    assert len(moved) == len(moved.unique()) == 60 and (moved >= 20).all()
    vectors = latents.movedim(1, -1).reshape(-1, 8)
    assert len(codebook[moved].unique(dim=0)) == 60
    assert all((vectors == code).all(1).any() for code in codebook[moved])
    kept = torch.ones(100, dtype=torch.bool)
    kept[moved] = False
    assert torch.equal(codebook[kept], before[kept])
    assert set(moved.tolist()) <= set(nearest_codes(latents, codebook).flatten().tolist())

    again = before.clone()
    restart_unused(again, counts, latents, torch.Generator().manual_seed(4))
    assert torch.equal(again, codebook)
    assert len(restart_unused(again, torch.ones(100), latents, torch.Generator())) == 0
