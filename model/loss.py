"""What does training minimise? The text's cross-entropy and the latents' squared error, summed so that workers can share.

Transfusion, arXiv 2408.11039, Sec. 3.3: L = L_LM + lambda * L_DDPM; what is noised when is in noise.py.

Legend: P patches and M latents of one modality, W numbers in a patch, N predicted tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from model.batch import Batch, Latents
from model.config import ModelConfig
from model.diffusion import noise
from model.loss_options import LossOptions
from model.transfusion import Output


class LossSums(NamedTuple):
    """Summed losses and what they were summed over, so that any number of workers can form the same mean.

    text: cross-entropy in nats over num_tokens, weighted ones counted by their weight; z-loss is in it. image: squared error
    over num_values numbers of all modalities.
    """

    text: Tensor
    num_tokens: float
    image: Tensor
    num_values: int


class Noised(NamedTuple):
    """One modality's noise, float32 [P, W], and its latents' times, float32 [M]."""

    noise: Tensor
    time: Tensor


def loss_sums(model: nn.Module, batch: Batch, seed: int, step: int, options: LossOptions) -> LossSums:
    """Both losses of a batch, with the noise of (seed, step).

    model: a Transfusion, or a wrapper with its forward. seed and step key the draw, not the state of any generator.
    """
    drawn = [draw(part, number, seed, step, options) for number, part in enumerate(batch.latents)]
    return loss_sums_at(model, batch, drawn, options)


def draw(latents: Latents, modality: int, seed: int, step: int, options: LossOptions) -> Noised:
    """Noise and times of one modality's latents."""
    num_patches = torch.tensor([math.prod(grid) for grid in latents.grids], dtype=torch.long)
    drawn = noise.draw(seed, step, latents.image_sample, num_patches, latents.patches.shape[-1], modality)
    time = noise.training_time(
        drawn.time,
        distribution=options.time_distribution,
        mean=options.time_mean,
        std=options.time_std,
        shift=options.time_shift,
    )
    device = latents.patches.device
    return Noised(drawn.noise.to(device), time.to(device) * latents.time_limit)


def loss_sums_at(model: nn.Module, batch: Batch, drawn: Sequence[Noised], options: LossOptions) -> LossSums:
    """Both losses at given noise and times, an entry of `drawn` for each modality."""
    process = cast(ModelConfig, getattr(model, "module", model).config).process
    patch_time = [part.time[latents.patch_image].unsqueeze(-1) for part, latents in zip(drawn, batch.latents, strict=True)]
    noised = [
        noise.add_noise(process, latents.patches, part.noise, time)
        for latents, part, time in zip(batch.latents, drawn, patch_time, strict=True)
    ]
    output: Output = model(batch, noised, [part.time for part in drawn])
    image = torch.zeros((), device=batch.ids.device)
    for number, latents in enumerate(batch.latents):
        error = noise.squared_error(
            process,
            output.predictions[number],
            noised=noised[number],
            clean=latents.patches,
            noise=drawn[number].noise,
            time=patch_time[number],
        )
        weight = noise.loss_weight(process, drawn[number].time, options.snr_gamma)[latents.patch_image]
        # No matrix products: autocast would do them in half precision.
        image = image + (weight * error.sum(-1)).sum()
    return LossSums(*_text_sum(output, batch, options), image, sum(part.patches.numel() for part in batch.latents))


def _text_sum(output: Output, batch: Batch, options: LossOptions) -> tuple[Tensor, float]:
    weight = torch.where(batch.after_image, options.after_image_weight, 1.0)
    each = output.text.cross_entropy
    if options.z_loss_weight:
        each = each + options.z_loss_weight * output.text.log_normaliser.square()
    return (each * weight).sum(), float(weight.sum())
