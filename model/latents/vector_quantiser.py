"""Latents quantised to the nearest of so many codes, and all codes kept in use: unused ones move.

The codes, the commitment term and the codebook term are van den Oord et al.'s (VQ-VAE, arXiv 1711.00937, eq. 3), trained
by gradients as VQGAN trains them (arXiv 2012.09841).

Legend: N images, C numbers of a code, Y/X latent height/width, K codes; a codebook is float32 [K, C].
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Quantised(NamedTuple):
    """Latents and the codes that stand for them."""

    latents: Tensor
    """The codes' vectors [N, C, Y, X], with the gradient of what they stand for."""
    codes: Tensor
    """int64 [N, Y, X]."""
    commitment: Tensor
    """Mean squared distance to the codes, moving the latents alone."""
    codebook: Tensor
    """The same, moving the codes alone."""


def nearest_codes(latents: Tensor, codebook: Tensor) -> Tensor:
    """[N, C, Y, X] -> int64 [N, Y, X]; of equally near codes the first."""
    # bfloat16 would not tell near codes apart.
    with torch.autocast(latents.device.type, enabled=False):
        vectors = latents.movedim(1, -1).float()
        # |v - c|^2 without |v|^2, which is the same for every code, and with its sign turned.
        nearness = 2 * vectors @ codebook.float().T - codebook.float().square().sum(1)
    return nearness.argmax(-1)


def look_up(codes: Tensor, codebook: Tensor) -> Tensor:
    """int64 [N, Y, X] -> [N, C, Y, X]."""
    return F.embedding(codes, codebook).movedim(-1, 1)


def quantise(latents: Tensor, codebook: Tensor) -> Quantised:
    """The nearest codes; the decoder's gradient passes them straight through to the latents."""
    latents = latents.float()
    codes = nearest_codes(latents.detach(), codebook.detach())
    vectors = look_up(codes, codebook)
    return Quantised(
        latents=latents + (vectors - latents).detach(),
        codes=codes,
        commitment=F.mse_loss(latents, vectors.detach()),
        codebook=F.mse_loss(vectors, latents.detach()),
    )


def perplexity(counts: Tensor) -> float:
    """How many codes are in use, in effect: e to the entropy of counts [K], between 1 and K."""
    share = counts.double() / counts.sum().clamp_min(1)
    return float(torch.special.entr(share).sum().exp())


@torch.no_grad()
def restart_unused(codebook: Tensor, counts: Tensor, latents: Tensor, generator: torch.Generator) -> Tensor:
    """Put codes that nothing was nearest to where latents are, in place; returns which codes moved, int64 [at most K].

    A code that no latent is nearest to gets no gradient, and would stay unused for ever. Every moved code gets a vector of
    latents [N, C, Y, X] of its own, so no more codes move than there are vectors. generator: a CPU generator that chooses both.
    """
    vectors = latents.movedim(1, -1).reshape(-1, codebook.shape[1])
    unused = (counts == 0).nonzero().flatten().cpu()
    number = min(len(unused), len(vectors))
    moved = unused[torch.randperm(len(unused), generator=generator)[:number]].to(codebook.device)
    chosen = torch.randperm(len(vectors), generator=generator)[:number].to(vectors.device)
    codebook[moved] = vectors[chosen].to(codebook.dtype)
    return moved
