"""What latents teach: noise added at a time between 0 (clean, x_0) and 1 (pure noise), and what the network predicts of it.

The prediction types (model/config.py: DiffusionProcess), with alpha_t and sigma_t of the time (schedules.py):
    epsilon  the noise eps; the paper's (Transfusion, arXiv 2408.11039, Sec. 2.2; Ho et al., arXiv 2006.11239, eq. 14)
    v        v = alpha_t * eps - sigma_t * x_0 (Salimans and Ho, arXiv 2202.00512, Appendix D)
    flow     eps - x_0, the velocity d x_t / d time (Esser et al., arXiv 2403.03206, Sec. 2)
    x        x_0, with the loss on the velocity it implies (JiT, arXiv 2511.13720, Sec. 3)
"epsilon" is written as eps = sigma_t * x_t + alpha_t * network. Since eps = sigma_t * x_t + alpha_t * v, the network's output
stands where v's does, and its error in the noise is alpha_t times its error in v: the paper's loss, number by number. Without
that skip a network must repeat a whole patch of noise, behind a norm and through a stream hardly wider than the patch; what it
loses on the way is divided by alpha_t at high noise, and captions were not learnt.
Noise is a pure function of (seed, step, sample, modality), so that neither a restart nor the number of workers changes what is
learnt.

Legend: M latents, P patches of all of them, W numbers in a patch.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from core.random import philox, seed_of
from model.config import DiffusionProcess
from model.diffusion.schedules import alpha_sigma, compute_snr

# Below this time the loss of "x" divides by it instead of by the time, or the nearly clean patches would outweigh all others
# without bound, by 1 / t^2. JiT clips the same denominator, at the same value.
X_TIME_FLOOR = 0.05

# What keeps `predicted_noise` of "x" finite at time 0, where clean patches say nothing of the noise.
TINY_TIME = 1e-6


class TimedNoise(NamedTuple):
    """Noise of some latents, and the noise levels it is added at."""

    time: Tensor
    """float32 [M], in 0..1."""
    noise: Tensor
    """float32 [P, W], normal."""


def sample_noise(
    seed: int, step: int, sample_index: Tensor, num_patches: Tensor, patch_dim: int, modality: int = 0
) -> TimedNoise:
    """Noise and uniform times of every latent of one modality in a batch.

    sample_index: int64 [M], each latent's number in its split. num_patches: int64 [M]. modality: its number in the
    configuration.
    """
    counts = num_patches.tolist()
    time, noise = torch.empty(len(counts)), torch.empty(sum(counts), patch_dim)
    streams = philox(seed_of(seed, step, sample, modality) for sample in sample_index.tolist())
    start = 0
    for latent, (generator, count) in enumerate(zip(streams, counts, strict=True)):
        time[latent] = generator.random(dtype="float32")
        generator.standard_normal(dtype="float32", out=noise[start : start + count].numpy())
        start += count
    return TimedNoise(time, noise)


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


def add_noise(process: DiffusionProcess, x_0: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """The noised patches x_t. x_0, noise: [..., W]; time broadcasts against them."""
    alpha_t, sigma_t = alpha_sigma(process, time)
    return alpha_t * x_0 + sigma_t * noise


def squared_error(
    process: DiffusionProcess, prediction: Tensor, *, x_t: Tensor, x_0: Tensor, noise: Tensor, time: Tensor
) -> Tensor:
    """What training minimises, number by number: [..., W] like prediction, x_t, x_0 and noise; time broadcasts.

    "x" compares the velocities (x_t - x_0) / t of the prediction and of the truth, with t from X_TIME_FLOOR up.
    """
    if process.prediction_type == "x":
        floored = time.clamp(min=X_TIME_FLOOR)
        return ((x_t - prediction) / floored - (x_t - x_0) / floored).square()
    if process.prediction_type == "flow":
        return (prediction - (noise - x_0)).square()
    alpha_t, sigma_t = alpha_sigma(process, time)
    error = prediction - (alpha_t * noise - sigma_t * x_0)
    return (error if process.prediction_type == "v" else alpha_t * error).square()


def loss_weight(process: DiffusionProcess, time: Tensor, snr_gamma: float) -> Tensor:
    """Min-SNR weights (Hang et al., arXiv 2303.09556, Sec. 3.4), of the shape of time; snr_gamma 0 gives ones.

    Whatever the prediction type, the clean patch that it implies then has the squared error's weight min(SNR, gamma). The
    error that is squared is that of the clean patch times 1 / SNR ("epsilon"), 1 / (SNR + 1) ("v"), or t^2 ("flow" and "x",
    whose SNR is ((1 - t) / t)^2; with t from X_TIME_FLOOR up in "x", as in `squared_error`), which gives
        epsilon  min(SNR, gamma) / SNR         v  min(SNR, gamma) / (SNR + 1)         flow, x  min(SNR, gamma) * t^2
    Weights are at most 1 and not normalised, so they lower the latents' share of the whole loss; at time 1 only epsilon's is
    not (nearly) 0.
    """
    if snr_gamma == 0:
        return torch.ones_like(time)
    snr = compute_snr(process, time)
    if process.prediction_type == "epsilon":
        # min(SNR, gamma) / SNR without the quotient of two infinities at time 0.
        return (snr_gamma / snr).clamp(max=1)
    if process.prediction_type == "v":
        return snr.clamp(max=snr_gamma) / (snr + 1)
    return snr.clamp(max=snr_gamma) * time.clamp(min=X_TIME_FLOOR if process.prediction_type == "x" else 0).square()


def predicted_x_0(process: DiffusionProcess, x_t: Tensor, prediction: Tensor, time: Tensor) -> Tensor:
    """The clean patches that a prediction implies. x_t, prediction: [..., W]; time broadcasts against them."""
    if process.prediction_type == "x":
        return prediction
    alpha_t, sigma_t = alpha_sigma(process, time)
    if process.prediction_type == "flow":
        return x_t - sigma_t * prediction
    return alpha_t * x_t - sigma_t * prediction


def predicted_noise(process: DiffusionProcess, x_t: Tensor, prediction: Tensor, time: Tensor) -> Tensor:
    """The noise that a prediction implies; arguments as for `predicted_x_0`. Finite at time 0, where "x" says nothing of it."""
    alpha_t, sigma_t = alpha_sigma(process, time)
    if process.prediction_type == "flow":
        return x_t + alpha_t * prediction
    if process.prediction_type == "x":
        return (x_t - alpha_t * prediction) / sigma_t.clamp(min=TINY_TIME)
    return sigma_t * x_t + alpha_t * prediction
