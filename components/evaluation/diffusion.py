"""Squared errors of held-out images at fixed noise levels, under their own captions and under others.

The gap between the error under a wrong and under the right caption shows a model that ignores its captions before any
picture does. Both see the same noise. An image with a caption is laid out after it, whatever the corpus' order.

The error is that of the network's own target, which training minimises, or that of the clean latent that the prediction
implies. Targets of two prediction types do not compare, and neither do times of two paths; clean latents do, at times of
equal signal-to-noise ratio.

Legend: M images of a batch, W numbers in a patch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from components.evaluation.held_out import ImageDocument, Stored
from components.evaluation.layout import in_groups, rows_of
from core.random import seed_of
from model.batch import Batch
from model.config import DiffusionProcess, ModelConfig
from model.diffusion import noise
from model.diffusion.noise import TimedNoise
from model.diffusion.schedules import alpha_sigma
from model.loss import loss_sums_at
from model.loss_options import PLAIN
from model.transfusion import Transfusion

# Whose schedule noise levels are given by where models of other paths are to compare.
COSINE = DiffusionProcess("epsilon")

Error = Callable[[Transfusion, Batch, TimedNoise], Tensor]
"""The squared error summed over all images of a batch."""


class DiffusionLosses(NamedTuple):
    """Mean squared errors, one for each time."""

    times: tuple[float, ...]
    all: list[float]
    """Of every image."""
    right: list[float] | None
    wrong: list[float] | None
    """Of the captioned images, under their own and under another image's caption; None where there are no two different
    captions."""


def measure_diffusion(
    model: Transfusion,
    documents: Sequence[ImageDocument],
    times: tuple[float, ...],
    *,
    seed: int,
    error: Error,
    max_positions: int = 4096,
) -> DiffusionLosses:
    """The errors of all images of `documents`. max_positions: padded row positions of one forward pass."""
    captioned = [document for document in documents if document.caption is not None]
    others = [document.stored for document in documents if document.caption is None]
    right = [caption_first(document.stored, document.stored.ids, model.config) for document in captioned]
    mistaken = other_captions(captioned)
    wrong = [
        caption_first(document.stored, captioned[other].stored.ids, model.config)
        for document, other in zip(captioned, mistaken, strict=False)
    ]
    loss: dict[str, list[float]] = {"all": [], "right": [], "wrong": []}
    for number, time in enumerate(times):
        sums = {
            name: squared_error(model, stored, time, error, seed=seed_of(seed, number), max_positions=max_positions)
            for name, stored in (("right", right), ("wrong", wrong), ("others", others))
        }
        num_values = sums["right"].num_values + sums["others"].num_values
        loss["all"].append((sums["right"].total + sums["others"].total) / num_values)
        for name in ("right", "wrong"):
            loss[name].append(sums[name].total / max(sums[name].num_values, 1))
    return DiffusionLosses(times, loss["all"], loss["right"] if wrong else None, loss["wrong"] if wrong else None)


class SquaredError(NamedTuple):
    total: float
    num_values: int


def target_error(model: Transfusion, batch: Batch, timed: TimedNoise) -> Tensor:
    """An `Error`: of what the network predicts, as in training."""
    return loss_sums_at(model, batch, [timed], PLAIN).image


def x_0_error(model: Transfusion, batch: Batch, timed: TimedNoise) -> Tensor:
    """An `Error`: of the clean latents that the prediction implies."""
    process, (images,) = model.config.process, batch.latents
    time = timed.time[images.latent_index].unsqueeze(-1)
    x_t = noise.add_noise(process, images.patches, timed.noise, time)
    (prediction,) = model(batch, [x_t], [timed.time]).predictions
    return (noise.predicted_x_0(process, x_t, prediction, time) - images.patches).square().sum()


def error_of_mean(documents: Sequence[ImageDocument]) -> float:
    """The mean squared error of answering with the mean of all images of `documents`, position by position."""
    latents = np.concatenate([document.stored.latents for document in documents]).astype(np.float64)
    return float(latents.var(axis=0).mean())


def times_of_equal_snr(process: DiffusionProcess, cosine_times: Sequence[float]) -> tuple[float, ...]:
    """Times of a process at which its signal-to-noise ratio is that of the cosine schedule at `cosine_times`.

    On the DDPM path the same times: zero terminal SNR takes 0.3% off the ratio at 0.98, and less before.
    """
    if not process.is_flow:
        return tuple(cosine_times)
    alpha_t, sigma_t = alpha_sigma(COSINE, torch.tensor(cosine_times, dtype=torch.float64))
    return tuple((sigma_t / (alpha_t + sigma_t)).tolist())


@torch.inference_mode()
def squared_error(
    model: Transfusion, stored: Sequence[Stored], time: float, error: Error, *, seed: int, max_positions: int
) -> SquaredError:
    """Summed squared error over all images at one time; image i's noise depends on (seed, i) alone."""
    first_image = np.cumsum([0, *(len(document.latents) for document in stored)])
    device = model.embedding.weight.device
    total, num_values = 0.0, 0
    for group in in_groups(stored, model.config, max_positions):
        batch = rows_of([stored[index] for index in group], model.config)
        sample = torch.cat([torch.arange(int(first_image[index]), int(first_image[index + 1])) for index in group])
        (images,) = batch.latents
        num_patches = torch.bincount(images.latent_index, minlength=len(sample))
        sampled = noise.sample_noise(seed, 0, sample, num_patches, images.patches.shape[-1])
        timed = TimedNoise(time=torch.full((len(sample),), time, device=device), noise=sampled.noise.to(device))
        total += float(error(model, batch.to(device), timed))
        num_values += images.patches.numel()
    return SquaredError(total, num_values)


def caption_first(stored: Stored, caption_source: np.ndarray, config: ModelConfig) -> Stored:
    """The one image of `stored` after the text of another stored stream: [bos] text [boi] [eoi] [eos]."""
    boi, eoi = config.image.begin_token_id, config.image.end_token_id
    markers = (config.bos_token_id, config.eos_token_id, boi, eoi)
    text = caption_source[~np.isin(caption_source, markers)]
    return Stored(np.concatenate([[config.bos_token_id], text, [boi, eoi, config.eos_token_id]]), stored.latents)


def other_captions(documents: Sequence[ImageDocument]) -> list[int]:
    """For each document the next one, round about, whose caption differs; empty where all captions are alike."""
    if len({document.caption for document in documents}) < 2:
        return []
    chosen = []
    for index, document in enumerate(documents):
        step = next(
            step for step in range(1, len(documents)) if documents[(index + step) % len(documents)].caption != document.caption
        )
        chosen.append((index + step) % len(documents))
    return chosen
