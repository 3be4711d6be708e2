"""Squared errors of held-out images at fixed noise levels, under their own captions and under others.

The gap between the error under a wrong and under the right caption shows a model that ignores its captions before any
picture does. Both see the same noise. An image with a caption is laid out after it, whatever the corpus' order.

The error is that of the network's own target, which training minimises, or that of the clean latent that the prediction
implies. Targets of two prediction types do not compare, and neither do times of two paths; clean latents do, at times of
equal signal-to-noise ratio.

Every error is kept document by document too, so that the figures have intervals.

Legend: D documents, T times, P patches and M images of a batch, W numbers in a patch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from components.data.row_layout import without_text
from components.evaluation.held_out import ImageDocument, Stored, are_alike
from components.evaluation.intervals import Items, items_of
from components.evaluation.layout import caption_first, in_groups, rows_of
from core.random import seed_of
from model.batch import Batch
from model.diffusion import noise
from model.diffusion.noise import TimedNoise
from model.transfusion import Transfusion


class BatchError(NamedTuple):
    """Squared errors of the images of a batch."""

    total: Tensor
    """float32 [], of all of them."""
    by_patch: Tensor
    """float32 [P], summed over the numbers of each patch."""


Error = Callable[[Transfusion, Batch, TimedNoise], BatchError]
"""How a batch's errors are measured."""


class DocumentErrors(NamedTuple):
    """Squared errors of single documents, summed over the numbers of their images."""

    names: tuple[str, ...]
    """Of the D documents, the captioned ones first."""
    num_values: list[int]
    """[D]."""
    right: list[list[float]]
    """[T, D], under their own captions, or in their own places where they have none."""
    wrong: list[list[float]]
    """[T, captioned documents], under another image's caption; as many lists, empty, where there are no two different
    captions."""

    def of_all(self, number: int | None = None) -> Items:
        """The error at one time, or its mean over all."""
        return items_of(self.names, _at(self.right, number), self.num_values)

    def gap(self, number: int | None = None) -> Items:
        """The error under a wrong caption less that under the right one, at one time, or its mean over all."""
        wrong = _at(self.wrong, number)
        own = slice(len(wrong))
        return items_of(self.names[own], wrong - _at(self.right, number)[own], self.num_values[own])


class DiffusionLosses(NamedTuple):
    """Mean squared errors, one for each time."""

    times: tuple[float, ...]
    all: list[float]
    """Of every image."""
    right: list[float] | None
    wrong: list[float] | None
    """Of the captioned images, under their own and under another image's caption; None where there are no two different
    captions."""
    documents: DocumentErrors
    """What the means are of; summed in another order, so that the last digits may differ."""


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
    others = [document for document in documents if document.caption is None]
    right = [caption_first(document.stored, document.stored.ids, model.config) for document in captioned]
    mistaken = other_captions(captioned)
    wrong = [
        caption_first(document.stored, captioned[other].stored.ids, model.config)
        for document, other in zip(captioned, mistaken, strict=False)
    ]
    streams = {"right": right, "wrong": wrong, "others": [document.stored for document in others]}
    sums = [
        {
            name: squared_error(model, stored, time, error, seed=seed_of(seed, number), max_positions=max_positions)
            for name, stored in streams.items()
        }
        for number, time in enumerate(times)
    ]
    of_all = [
        (each["right"].total + each["others"].total) / (each["right"].num_values + each["others"].num_values) for each in sums
    ]
    of_captioned = {name: [each[name].total / max(each[name].num_values, 1) for each in sums] for name in ("right", "wrong")}
    single = DocumentErrors(
        tuple(document.name for document in [*captioned, *others]),
        [document.stored.latents.size for document in [*captioned, *others]],
        [[*each["right"].by_document, *each["others"].by_document] for each in sums],
        [each["wrong"].by_document for each in sums],
    )
    return DiffusionLosses(times, of_all, *((of_captioned["right"], of_captioned["wrong"]) if wrong else (None, None)), single)


def _at(errors: list[list[float]], number: int | None) -> np.ndarray:
    return np.mean(errors, axis=0) if number is None else np.asarray(errors[number])


class SquaredError(NamedTuple):
    """Over all images of some documents."""

    total: float
    num_values: int
    by_document: list[float]
    """Summed document by document, and so in another order than `total`."""


def target_error(model: Transfusion, batch: Batch, timed: TimedNoise) -> BatchError:
    """An `Error`: of what the network predicts, as in training."""
    (images,) = batch.latents
    x_t, prediction, time = _denoised(model, batch, timed)
    error = noise.squared_error(
        model.config.process, prediction, x_t=x_t, x_0=images.patches, noise=timed.noise, time=time
    ).sum(-1)
    return BatchError(error.sum(), error)


def x_0_error(model: Transfusion, batch: Batch, timed: TimedNoise) -> BatchError:
    """An `Error`: of the clean latents that the prediction implies."""
    (images,) = batch.latents
    x_t, prediction, time = _denoised(model, batch, timed)
    error = (noise.predicted_x_0(model.config.process, x_t, prediction, time) - images.patches).square()
    return BatchError(error.sum(), error.sum(-1))


def _denoised(model: Transfusion, batch: Batch, timed: TimedNoise) -> tuple[Tensor, Tensor, Tensor]:
    """Noised patches, the network's prediction for them and their times: [P, W], [P, W] and [P, 1]."""
    (images,) = batch.latents
    time = timed.time[images.latent_index].unsqueeze(-1)
    x_t = noise.add_noise(model.config.process, images.patches, timed.noise, time)
    (prediction,) = model(batch, [x_t], [timed.time]).predictions
    return x_t, prediction, time


def error_of_mean(documents: Sequence[ImageDocument]) -> float:
    """The mean squared error of answering with the mean of all images of `documents`, position by position."""
    latents = np.concatenate([document.stored.latents for document in documents]).astype(np.float64)
    return float(latents.var(axis=0).mean())


@torch.inference_mode()
def squared_error(
    model: Transfusion,
    stored: Sequence[Stored],
    time: float,
    error: Error,
    *,
    seed: int,
    max_positions: int,
    first_image: Sequence[int] | None = None,
) -> SquaredError:
    """Squared errors of all images at one time; image i's noise depends on (seed, i) alone.

    first_image: i of each document's first image; None counts the images.
    """
    num_images = np.array([len(document.latents) for document in stored], np.int64)
    first = np.cumsum(num_images) - num_images if first_image is None else np.asarray(first_image)
    device = model.embedding.weight.device
    total, num_values, by_document = 0.0, 0, np.zeros(len(stored))
    for group in in_groups(stored, model.config, max_positions):
        batch = without_text(rows_of([stored[index] for index in group], model.config))
        sample = torch.cat([torch.arange(int(first[index]), int(first[index] + num_images[index])) for index in group])
        (images,) = batch.latents
        num_patches = torch.bincount(images.latent_index, minlength=len(sample))
        sampled = noise.sample_noise(seed, 0, sample, num_patches, images.patches.shape[-1])
        timed = TimedNoise(time=torch.full((len(sample),), time, device=device), noise=sampled.noise.to(device))
        found = error(model, batch.to(device), timed)
        total += float(found.total)
        num_values += images.patches.numel()
        document_of = np.repeat(group, num_images[group])[images.latent_index.numpy()]
        by_document += np.bincount(document_of, found.by_patch.double().cpu().numpy(), minlength=len(stored))
    return SquaredError(total, num_values, by_document.tolist())


def other_captions(documents: Sequence[ImageDocument]) -> list[int]:
    """For each document the next one, round about, whose caption and image differ; empty where one has no such other.

    Several documents may show one image, each with a caption of its own, and none of these is a wrong one.
    """
    chosen = []
    for index, document in enumerate(documents):
        others = ((index + step) % len(documents) for step in range(1, len(documents)))
        wrong = next((other for other in others if not are_alike(documents[other], document)), None)
        if wrong is None:
            return []
        chosen.append(wrong)
    return chosen
