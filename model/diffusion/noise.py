"""What do latents teach? Noise added at a time between 0 (clean) and 1 (pure noise), and what the network predicts of it.

The objectives (model/config.py: Process), with signal a and noise b at the time (model/diffusion/schedules.py):
    epsilon  the noise eps; the paper's (Transfusion, arXiv 2408.11039, Sec. 2.2; Ho et al., arXiv 2006.11239, eq. 14)
    v        a * eps - b * clean (Salimans and Ho, arXiv 2202.00512, Appendix D)
    flow     eps - clean, the velocity d noised / d time (Esser et al., arXiv 2403.03206, Sec. 2)
    x        clean, with the loss on the velocity it implies (JiT, arXiv 2511.13720, Sec. 3)
Every draw is a pure function of (seed, step, sample, modality), so that neither a restart nor the number of workers changes
what is learnt.

Legend: M latents, P patches of all of them, W numbers in a patch.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from model.config import Process
from model.diffusion.schedules import levels, signal_to_noise

# Below this time the loss of "x" divides by it instead of by the time, or the nearly clean patches would outweigh all others
# without bound, by 1 / t^2. JiT clips the same denominator, at the same value.
X_TIME_FLOOR = 0.05

# What keeps `to_noise` of "x" finite at time 0, where clean patches say nothing of the noise.
TINY_TIME = 1e-6


class Draw(NamedTuple):
    """time: float32 [M], uniform in 0..1. noise: float32 [P, W], normal."""

    time: Tensor
    noise: Tensor


def draw(seed: int, step: int, samples: Tensor, num_patches: Tensor, patch_width: int, modality: int = 0) -> Draw:
    """Time and noise of every latent of one modality in a batch.

    samples: int64 [M], each latent's number in its split. num_patches: int64 [M]. modality: its number in the configuration.
    """
    times, noises = [], []
    for sample, count in zip(samples.tolist(), num_patches.tolist(), strict=True):
        # The first modality's key has no fourth part: it draws as it did when there were images alone.
        stream = key(seed, step, sample, modality) if modality else key(seed, step, sample)
        generator = torch.Generator().manual_seed(stream)
        times.append(torch.rand((), generator=generator))
        noises.append(torch.randn(count, patch_width, generator=generator))
    if not times:
        return Draw(torch.zeros(0), torch.zeros(0, patch_width))
    return Draw(torch.stack(times), torch.cat(noises))


def key(*parts: int) -> int:
    """Mix integers into one of 63 bits (the splitmix64 finaliser), so that neighbours give unrelated streams."""
    mixed = 0
    for part in parts:
        mixed = (mixed ^ (part & 0xFFFFFFFFFFFFFFFF)) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        mixed ^= mixed >> 31
    return mixed >> 1


def training_time(
    uniform: Tensor, *, distribution: Literal["uniform", "logit_normal"], mean: float, std: float, shift: float
) -> Tensor:
    """Noise levels [M] to train at, from uniform draws [M] in 0..1; rising in the draw.

    distribution: "uniform" is the paper's. "logit_normal": the sigmoid of a normal of `mean` and `std`, most often in the
        middle (Esser et al., arXiv 2403.03206, eq. 19); "uniform" uses neither.
    shift: above 1 moves times towards noise, shift * t / (1 + (shift - 1) * t) (same, eq. 23): a caption decides what an
        image shows at high noise, and more of the training is spent there. 1 moves nothing.
    Raises ValueError for another distribution, or a std or shift that is not positive.
    """
    if distribution not in ("uniform", "logit_normal"):
        raise ValueError(f"distribution: {distribution!r} is not one of 'uniform', 'logit_normal'")
    for name, value in (("std", std), ("shift", shift)):
        if not value > 0:
            raise ValueError(f"{name}: {value} must be above 0")
    time = uniform if distribution == "uniform" else torch.sigmoid(mean + std * torch.special.ndtri(uniform))
    return shift * time / (1 + (shift - 1) * time)


def add_noise(process: Process, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """The noised patches. clean, noise: [..., W]; time broadcasts against them."""
    at = levels(process, time)
    return at.signal * clean + at.noise * noise


def squared_error(
    process: Process, prediction: Tensor, *, noised: Tensor, clean: Tensor, noise: Tensor, time: Tensor
) -> Tensor:
    """What training minimises, number by number: [..., W] like prediction, noised, clean and noise; time broadcasts.

    "x" compares the velocities (noised - clean) / t of the prediction and of the truth, with t from X_TIME_FLOOR up.
    """
    if process.objective == "x":
        floored = time.clamp(min=X_TIME_FLOOR)
        return ((noised - prediction) / floored - (noised - clean) / floored).square()
    if process.objective == "flow":
        return (prediction - (noise - clean)).square()
    if process.objective == "v":
        at = levels(process, time)
        return (prediction - (at.signal * noise - at.noise * clean)).square()
    return (prediction - noise).square()


def loss_weight(process: Process, time: Tensor, snr_gamma: float) -> Tensor:
    """Min-SNR weights (Hang et al., arXiv 2303.09556, Sec. 3.4), of the shape of time; snr_gamma 0 gives ones.

    Whatever the objective, the clean patch that the prediction implies then has the squared error's weight min(SNR, gamma).
    The network's own error is that of the clean patch times 1 / SNR ("epsilon"), 1 / (SNR + 1) ("v"), or t^2 ("flow" and "x",
    whose SNR is ((1 - t) / t)^2; with t from X_TIME_FLOOR up in "x", as in `squared_error`), which gives
        epsilon  min(SNR, gamma) / SNR         v  min(SNR, gamma) / (SNR + 1)         flow, x  min(SNR, gamma) * t^2
    Weights are at most 1 and not normalised, so they lower the latents' share of the whole loss; at time 1 only epsilon's is
    not (nearly) 0.
    """
    if snr_gamma == 0:
        return torch.ones_like(time)
    snr = signal_to_noise(process, time)
    if process.objective == "epsilon":
        # min(SNR, gamma) / SNR without the quotient of two infinities at time 0.
        return (snr_gamma / snr).clamp(max=1)
    if process.objective == "v":
        return snr.clamp(max=snr_gamma) / (snr + 1)
    return snr.clamp(max=snr_gamma) * time.clamp(min=X_TIME_FLOOR if process.objective == "x" else 0).square()


def to_clean(process: Process, noised: Tensor, prediction: Tensor, time: Tensor) -> Tensor:
    """The clean patches that a prediction implies. noised, prediction: [..., W]; time broadcasts against them.

    "epsilon" divides by the signal, 5e-5 at time 1: finite, but the prediction's error is 20,000 times as large there.
    """
    if process.objective == "x":
        return prediction
    at = levels(process, time)
    if process.objective == "flow":
        return noised - at.noise * prediction
    if process.objective == "v":
        return at.signal * noised - at.noise * prediction
    return (noised - at.noise * prediction) / at.signal


def to_noise(process: Process, noised: Tensor, prediction: Tensor, time: Tensor) -> Tensor:
    """The noise that a prediction implies; arguments as for `to_clean`. Finite at time 0 too, where "x" says nothing of it."""
    if process.objective == "epsilon":
        return prediction
    at = levels(process, time)
    if process.objective == "flow":
        return noised + at.signal * prediction
    if process.objective == "v":
        return at.noise * noised + at.signal * prediction
    return (noised - at.signal * prediction) / at.noise.clamp(min=TINY_TIME)
