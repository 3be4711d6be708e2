"""What a training tells of itself: losses, progress, validations, and a callback that is told."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from components.training.transformer.config import Figure
from components.training.transformer.held_out_images import ImageErrors
from components.training.transformer.state import TransformerState
from model.loss import NUM_TIME_BANDS
from model.transfusion import Transfusion


class Losses(NamedTuple):
    """Means over whole steps."""

    total: float
    """text + lambda * image"""
    text: float
    """Nats a token, weighted as the options say."""
    image: float
    """Squared error a number."""
    text_after_image: float
    """Nats a token of texts behind latents, whatever their weight; NaN where there are none."""
    text_elsewhere: float
    """Nats a token of all other text. Training and held-out rows hold the two in other proportions."""


class Validation(NamedTuple):
    """What held-out documents say of the averaged weights."""

    losses: Losses
    images: ImageErrors

    def figure(self, name: Figure) -> float:
        """One number of it; NaN where there was nothing to measure it on."""
        if name == "caption_gap":
            return math.nan if self.images.caption_gap is None else self.images.caption_gap
        return self.losses.total if name == "loss" else getattr(self.losses, name)


class Progress(NamedTuple):
    """The steps since the last report, together."""

    step: int
    num_steps: int
    losses: Losses
    image_by_time: list[float]
    """Squared error a number in each of model/loss.py's bands of noise levels, unweighted; NaN where none was noised so."""
    learning_rate: float
    gradient_norm: float
    num_positions: int
    """Text tokens and patches over all workers."""
    flops: float
    """Of all workers."""
    elapsed_s: float
    """Spent in these steps alone."""
    waited_s: float
    """Of these, for what was not yet read, on this worker."""


class Callback:
    """What is done with the trainer's results: nothing, on workers other than 0, which take part in computing them alone."""

    def log(self, progress: Progress) -> None:
        """The steps since the last call."""

    def validated(self, step: int, validation: Validation) -> None:
        """Figures of held-out documents."""

    def sample(self, step: int, ema_model: Transfusion) -> None:
        """Weights to generate images with."""

    def checkpoint(self, step: int, state: TransformerState) -> None:
        """A state to keep."""

    def finish(self, state: TransformerState) -> None:
        """The state after the last step."""


class LossAccumulator:
    """Losses summed over steps and workers."""

    def __init__(self, device: torch.device) -> None:
        # text, num_tokens, image, num_values, by_place, by_time, num_positions, flops: one tensor, because workers add them all
        # up at once; and doubles, because float32 does not hold such counts exactly.
        self.sums = torch.zeros(10 + 2 * NUM_TIME_BANDS, dtype=torch.float64, device=device)
        self.num_steps = 0
        self.elapsed_s, self.waited_s = 0.0, 0.0

    def losses(self, image_loss_weight: float) -> Losses:
        """The means."""
        text, num_tokens, image, num_values, after, num_after, elsewhere, num_elsewhere = self.sums[:8].tolist()
        text, image = text / max(num_tokens, 1), image / max(num_values, 1)
        by_place = (after / num_after if num_after else math.nan, elsewhere / num_elsewhere if num_elsewhere else math.nan)
        return Losses(text + image_loss_weight * image, text, image, *by_place)

    def image_by_time(self) -> list[float]:
        """Progress.image_by_time."""
        errors, counts = self.sums[8:-2].view(2, -1)
        return (errors / counts).tolist()
