"""How much image and how much noise there is at a time: x_t = alpha_t * x_0 + sigma_t * eps, from 0 (clean) to 1 (noise).

The DDPM path ("epsilon", "v") is the paper's: T = 1000 steps of the cosine schedule (Transfusion, arXiv 2408.11039, Sec. 3.2;
Nichol and Dhariwal, arXiv 2102.09672, eq. 17, betas capped at 0.999). Zero terminal SNR shifts and scales it until nothing is
left of the image at time 1 (Lin et al., arXiv 2305.08891, Algorithm 1). Rectified flow ("flow", "x") is the straight line
(Liu et al., arXiv 2209.03003; Esser et al., arXiv 2403.03206, eq. 13).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from model.config import DiffusionProcess

NUM_DDPM_STEPS = 1000
OFFSET = 0.008  # s of arXiv 2102.09672, eq. 17: keeps the first betas from vanishing
LARGEST_BETA = 0.999
# Whose schedule noise levels are given by where models of other paths are to compare.
COSINE = DiffusionProcess("epsilon")


class AlphaSigma(NamedTuple):
    """Factors of clean values and of unit noise; each of the shape of the times."""

    alpha_t: Tensor
    sigma_t: Tensor


def alpha_sigma(process: DiffusionProcess, time: Tensor) -> AlphaSigma:
    """Both factors at times in 0..1, in time's precision.

    The DDPM path has T = 1000 steps: its times are rounded to the next multiple of 1 / T.
    """
    if process.is_flow:
        return AlphaSigma(1 - time, time)
    # In float64, for 1 - alpha_bar of small times and cos() of large ones cancel.
    index = (time.double() * NUM_DDPM_STEPS).round().clamp(0, NUM_DDPM_STEPS)
    alpha_t = _root_alpha_bar(index)
    if process.zero_terminal_snr:
        # Numbers, worked out by the host: a tensor made of numbers would have to travel to the device.
        first, last = _root_alpha_bar(torch.tensor([1, NUM_DDPM_STEPS], dtype=torch.float64)).tolist()
        # Algorithm 1: the first noisy step stays as it is, the last one becomes pure noise, all are shifted in between.
        alpha_t = torch.where(index > 0, (alpha_t - last) * (first / (first - last)), 1)
    sigma_t = (1 - alpha_t.square()).sqrt()
    return AlphaSigma(alpha_t.to(time.dtype), sigma_t.to(time.dtype))


def noisy_level(process: DiffusionProcess, time: Tensor) -> Tensor:
    """The noise levels that training is to see for times in 0..1, of the same shape.

    On the DDPM path the next multiple of 1 / T from 1 / T on: uniform times become the paper's uniform t in 1..T, the network
    is told the level that it sees, and never one without noise, where there is nothing to predict.
    """
    if process.is_flow:
        return time
    return (time * NUM_DDPM_STEPS).ceil().clamp(min=1) / NUM_DDPM_STEPS


def compute_snr(process: DiffusionProcess, time: Tensor) -> Tensor:
    """SNR = (alpha_t / sigma_t)^2, of the shape of time: infinite at time 0; ((1 - t) / t)^2 on the flow path."""
    alpha_t, sigma_t = alpha_sigma(process, time)
    return (alpha_t / sigma_t).square()


def times_of_equal_snr(process: DiffusionProcess, cosine_times: Sequence[float]) -> tuple[float, ...]:
    """Times of a process at which its signal-to-noise ratio is that of the cosine schedule at `cosine_times`.

    On the DDPM path the same times: zero terminal SNR takes 0.3% off the ratio at 0.98, and less before.
    """
    if not process.is_flow:
        return tuple(cosine_times)
    alpha_t, sigma_t = alpha_sigma(COSINE, torch.tensor(cosine_times, dtype=torch.float64))
    return tuple((sigma_t / (alpha_t + sigma_t)).tolist())


def _root_alpha_bar(index: Tensor) -> Tensor:
    """sqrt(alpha-bar) after `index` of the T steps, float64.

    The product of 1 - beta telescopes to eq. 17's f(t) / f(0) wherever no beta is capped, and only the last one is: f(1) = 0
    asks for a beta of 1.
    """

    def root_f(time: Tensor) -> Tensor:
        return torch.cos((time + OFFSET) / (1 + OFFSET) * (math.pi / 2))

    uncapped = root_f(index.clamp(max=NUM_DDPM_STEPS - 1) / NUM_DDPM_STEPS) / root_f(torch.zeros_like(index))
    return torch.where(index < NUM_DDPM_STEPS, uncapped, uncapped * math.sqrt(1 - LARGEST_BETA))
