"""What does the image half learn? Noise added at a time between 0 (clean) and 1 (pure noise), and the target to predict.

"epsilon" is the paper's: DDPM with T = 1000 and the cosine schedule (Transfusion, arXiv 2408.11039, Sec. 2.2 and 3.2; Nichol
and Dhariwal, arXiv 2102.09672, eq. 17, betas capped at 0.999). "flow" is rectified flow with the velocity as target (Liu et
al., arXiv 2209.03003; Esser et al., arXiv 2403.03206). Every draw is a pure function of (seed, step, sample), so that neither
a restart nor the number of workers changes what is learnt.

Legend: M images, P patches of all of them, W numbers in a patch.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from model.config import Objective

NUM_DDPM_STEPS = 1000


class Draw(NamedTuple):
    """time: float32 [M] in 0..1, before any limit. noise: float32 [P, W]."""

    time: Tensor
    noise: Tensor


def draw(seed: int, step: int, samples: Tensor, num_patches: Tensor, patch_width: int) -> Draw:
    """Time and noise of every image of a batch.

    samples: int64 [M], each image's number in its split. num_patches: int64 [M].
    """
    times, noises = [], []
    for sample, count in zip(samples.tolist(), num_patches.tolist(), strict=True):
        generator = torch.Generator().manual_seed(key(seed, step, sample))
        times.append(torch.rand((), generator=generator))
        noises.append(torch.randn(count, patch_width, generator=generator))
    if not times:
        return Draw(torch.zeros(0), torch.zeros(0, patch_width))
    return Draw(torch.stack(times), torch.cat(noises))


def shifted(time: Tensor, shift: float) -> Tensor:
    """Move times in 0..1 towards noise: shift * t / (1 + (shift - 1) * t) (Esser et al., arXiv 2403.03206, eq. 23).

    A caption decides what an image shows at high noise; a shift above 1 spends more of the training there.
    """
    return shift * time / (1 + (shift - 1) * time)


def key(*parts: int) -> int:
    """Mix integers into one of 63 bits (the splitmix64 finaliser), so that neighbours give unrelated streams."""
    mixed = 0
    for part in parts:
        mixed = (mixed ^ (part & 0xFFFFFFFFFFFFFFFF)) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        mixed ^= mixed >> 31
    return mixed >> 1


def add_noise(objective: Objective, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """The noised patches. clean, noise: [..., W]; time broadcasts against them."""
    if objective == "flow":
        return (1 - time) * clean + time * noise
    signal = signal_level(time)
    return signal.sqrt() * clean + (1 - signal).sqrt() * noise


def target(objective: Objective, clean: Tensor, noise: Tensor) -> Tensor:
    """What the model regresses onto: the velocity d x_t / d t = noise - clean, or the noise."""
    return noise - clean if objective == "flow" else noise


def signal_level(time: Tensor) -> Tensor:
    """The cosine schedule's alpha-bar at times in 0..1, on the grid of T = 1000 steps; 1 at time 0."""
    index = (time * NUM_DDPM_STEPS).round().long().clamp(0, NUM_DDPM_STEPS)
    return _alpha_bar().to(time.device)[index]


@functools.cache
def _alpha_bar() -> Tensor:
    """float32 [T + 1]; entry 0 is the clean image."""

    def level(t: float) -> float:
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    steps = range(NUM_DDPM_STEPS)
    beta = [min(1 - level((i + 1) / NUM_DDPM_STEPS) / level(i / NUM_DDPM_STEPS), 0.999) for i in steps]
    product = torch.cumprod(1 - torch.tensor(beta, dtype=torch.float64), dim=0)
    return torch.cat([torch.ones(1, dtype=torch.float64), product]).float()
