"""The training loss: the text's cross-entropy and the latents' squared error, summed so that workers can share.

Transfusion, arXiv 2408.11039, Sec. 3.3: L = L_LM + lambda * L_DDPM; what is noised when is in diffusion/noise.py.

Legend: P patches and M latents of one modality, W numbers in a patch, N predicted tokens, T bands of noise levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from model.batch import Batch, Latents
from model.config import DiffusionProcess, ModelConfig
from model.diffusion import noise
from model.diffusion.noise import TimedNoise
from model.diffusion.schedules import noisy_level
from model.loss_options import LossOptions
from model.transfusion import Output

# Bands of equal width in 0..1 that the images' errors are told apart by: T.
NUM_TIME_BANDS = 4


class LossSums(NamedTuple):
    """Summed losses and what they were summed over, so that any number of workers can form the same mean."""

    text: Tensor
    """Cross-entropy in nats, z-loss in it, each token counted by its weight."""
    num_tokens: Tensor
    """The sum of the weights, float32; a tensor, because a number would wait for the device."""
    image: Tensor
    """Squared error over num_values numbers of all modalities."""
    num_values: int
    by_place: Tensor
    """Of the tokens of texts behind latents, and of all others: cross-entropy in nats, unweighted, and number; float32 [4]."""
    by_time: Tensor
    """Of the patches in each band of noise levels: squared error, unweighted, and how many numbers; float32 [2 * T]."""


def loss_sums(model: nn.Module, batch: Batch, seed: int, step: int, options: LossOptions) -> LossSums:
    """Both losses of a batch, with the noise of (seed, step).

    model: a Transfusion, or a wrapper with its forward. seed and step key the noise, not the state of any generator.
    """
    process = process_of(model)
    noises = [training_noise(process, part, number, seed, step, options) for number, part in enumerate(batch.latents)]
    return loss_sums_at(model, batch, noises, options)


def process_of(model: nn.Module) -> DiffusionProcess:
    """The diffusion process of a Transfusion, or of a wrapper (DistributedDataParallel), which keeps it as `module`."""
    return cast(ModelConfig, getattr(model, "module", model).config).process


def training_noise(
    process: DiffusionProcess, latents: Latents, modality: int, seed: int, step: int, options: LossOptions
) -> TimedNoise:
    """Noise of one modality's latents, at the times that the options ask for, on the latents' device."""
    num_patches = torch.tensor([math.prod(grid) for grid in latents.grids], dtype=torch.long)
    uniform = noise.sample_noise(seed, step, latents.sample_index, num_patches, latents.patches.shape[-1], modality)
    time = noise.training_time(
        uniform.time,
        distribution=options.time_distribution,
        mean=options.time_mean,
        std=options.time_std,
        shift=options.time_shift,
    )
    # On the CPU until here, so that any device and any number of workers learn from the same noise.
    device = latents.patches.device
    return TimedNoise(time=noisy_level(process, time.to(device) * latents.time_limit), noise=uniform.noise.to(device))


def loss_sums_at(model: nn.Module, batch: Batch, noises: Sequence[TimedNoise], options: LossOptions) -> LossSums:
    """Both losses at given noise and times, an entry of `noises` for each modality."""
    process = process_of(model)
    patch_time = [part.time[latents.latent_index].unsqueeze(-1) for part, latents in zip(noises, batch.latents, strict=True)]
    x_t = [
        noise.add_noise(process, latents.patches, part.noise, time)
        for latents, part, time in zip(batch.latents, noises, patch_time, strict=True)
    ]
    output: Output = model(batch, x_t, [part.time for part in noises])
    image = torch.zeros((), device=batch.input_ids.device)
    by_time = torch.zeros(2 * NUM_TIME_BANDS, device=batch.input_ids.device)
    for number, latents in enumerate(batch.latents):
        error = noise.squared_error(
            process,
            output.predictions[number],
            x_t=x_t[number],
            x_0=latents.patches,
            noise=noises[number].noise,
            time=patch_time[number],
        )
        weight = noise.loss_weight(process, noises[number].time, options.snr_gamma)[latents.latent_index]
        # Products and sums, and not a dot product: that autocast would compute in half precision.
        image = image + (weight * error.sum(-1)).sum()
        by_time += _by_time(error, patch_time[number])
    # Sums and not means: workers hold different numbers of tokens and patches, and divide by those of all.
    num_values = sum(part.patches.numel() for part in batch.latents)
    return LossSums(*_text_sums(output, batch, options), image, num_values, _by_place(output, batch), by_time)


def _text_sums(output: Output, batch: Batch, options: LossOptions) -> tuple[Tensor, Tensor]:
    """LossSums.text and num_tokens."""
    weight = torch.where(batch.after_image, options.after_image_weight, 1.0)
    each = output.text.cross_entropy
    if options.z_loss_weight:
        each = each + options.z_loss_weight * output.text.log_normaliser.square()
    return (each * weight).sum(), weight.sum()


def _by_place(output: Output, batch: Batch) -> Tensor:
    """LossSums.by_place: for people, so no gradient comes from it."""
    each = output.text.cross_entropy.detach()
    places = (batch.after_image, ~batch.after_image)
    return torch.stack([value for place in places for value in ((each * place).sum(), place.sum())]).float()


@torch.no_grad()
def _by_time(error: Tensor, time: Tensor) -> Tensor:
    """LossSums.by_time of one modality: for people. error: [P, W]. time: [P, 1]."""
    band = (time.squeeze(-1) * NUM_TIME_BANDS).long().clamp(max=NUM_TIME_BANDS - 1)
    # A mask and sums, whose result is the same every time on a GPU too; the counts of a bincount would be waited for.
    is_in = torch.arange(NUM_TIME_BANDS, device=band.device).unsqueeze(1) == band
    return torch.cat([(error.float().sum(-1) * is_in).sum(-1), is_in.sum(-1) * float(error.shape[-1])])
