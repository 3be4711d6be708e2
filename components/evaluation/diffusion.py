"""Diffusion losses of held-out images at fixed noise levels, under their own captions and under others.

The gap between the loss under a wrong and under the right caption shows a model that ignores its captions before any
picture does. Both losses see the same noise. An image with a caption is laid out after it, whatever the corpus' order.

Legend: M images of a batch, W numbers in a patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from components.evaluation.held_out import ImageDocument, Stored
from components.evaluation.layout import in_groups, rows_of
from core.random import seed_of
from model.config import ModelConfig
from model.diffusion import noise
from model.diffusion.noise import TimedNoise
from model.loss import loss_sums_at
from model.loss_options import PLAIN
from model.transfusion import Transfusion


class DiffusionLosses(NamedTuple):
    """Mean squared errors of what the network predicts, one for each time."""

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
    max_positions: int = 4096,
) -> DiffusionLosses:
    """The losses of all images of `documents`. max_positions: padded row positions of one forward pass."""
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
            name: squared_error(model, stored, time, seed=seed_of(seed, number), max_positions=max_positions)
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


@torch.inference_mode()
def squared_error(model: Transfusion, stored: Sequence[Stored], time: float, *, seed: int, max_positions: int) -> SquaredError:
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
        sums = loss_sums_at(model, batch.to(device), [timed], PLAIN)
        total += float(sums.image)
        num_values += sums.num_values
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
