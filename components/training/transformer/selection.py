"""Which weights a training hands on, and whether it ends before its last step: from its held-out figures so far.

A checkpoint holds what is known after its step, so that a run that was killed decides as one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import NamedTuple

import torch

from components.training.transformer.config import Figure, SelectionConfig
from core.errors import BadInput
from core.text import counted


class HeldOutFigure(NamedTuple):
    """A figure that a validation gives."""

    name: str
    """In a sentence."""
    measured_on: str
    """What held-out documents must hold."""
    higher_is_better: bool = False


FIGURES: dict[Figure, HeldOutFigure] = {
    "loss": HeldOutFigure("held-out loss", "text or an image"),
    "text": HeldOutFigure("held-out text loss", "text"),
    "text_after_image": HeldOutFigure("held-out loss of text after images", "text after an image"),
    "text_elsewhere": HeldOutFigure("held-out loss of text elsewhere", "text that stands behind no image"),
    "image": HeldOutFigure("held-out image loss", "an image"),
    "caption_gap": HeldOutFigure("held-out caption gap", "two images with different captions", higher_is_better=True),
}


def check_measurable(figure: Figure, measurable: Collection[Figure]) -> None:
    """Raise BadInput where the figure that decides cannot be measured on the held-out rows."""
    if figure not in measurable:
        others = [name for name in FIGURES if name in measurable]
        missing = f"and the held-out rows do not hold {FIGURES[figure].measured_on}"
        raise BadInput(f"train.selection.figure is {figure}, {missing}; take {' or '.join(others)}")


class Selection:
    """The best validation of a training so far, and how many there were since the last real improvement."""

    def __init__(self, config: SelectionConfig, max_steps: int) -> None:
        self.config, self.max_steps = config, max_steps
        # The best figure and its step, the figure that patience waits to see improved, the validations since it, and the
        # step after which the training ended (0: it goes on). One tensor of doubles, because a checkpoint holds tensors.
        self.state = torch.tensor([math.nan, 0, math.nan, 0, 0], dtype=torch.float64)

    @property
    def best_step(self) -> int:
        """The step of the best figure; 0 where none was a number yet."""
        return int(self.state[1])

    @property
    def last_step(self) -> int:
        """After which the training ends, as far as is known."""
        # By numpy: every step asks, and no operator of torch's is needed for it.
        return int(self.state.numpy()[4]) or self.max_steps

    @property
    def kept_step(self) -> int:
        """Whose weights are handed on where the training has ended."""
        return self.best_step if self.config.weights == "best" and self.best_step else self.last_step

    def take(self, step: int, figure: float) -> bool:
        """Note the figure of a validation; whether it is the best so far. One that is no number is no improvement."""
        config = self.config
        best, best_step, reference, waited, ended = self.state.tolist()
        is_best = self._is_better(figure, best, 0.0)
        if is_best:
            best, best_step = figure, step
        # As Keras counts: small improvements may add up to one that is large enough.
        if self._is_better(figure, reference, config.min_improvement):
            reference, waited = figure, 0
        else:
            waited += 1
        if config.patience and waited >= config.patience:
            ended = step
        self.state.copy_(torch.tensor([best, best_step, reference, waited, ended], dtype=torch.float64))
        return is_best

    def sentence(self) -> str:
        """Which weights are handed on, and why, at the end of the training."""
        config, figure = self.config, FIGURES[self.config.figure]
        if self.last_step < self.max_steps:
            moved = "risen" if figure.higher_is_better else "fallen"
            least = f" by more than {config.min_improvement:g}" if config.min_improvement else ""
            ended = f"{figure.name} has not {moved}{least} for {counted(config.patience, 'validation')}"
            ended = f"stopped at step {self.last_step} of {self.max_steps}: {ended}"
        else:
            ended = f"trained to step {self.max_steps}"
        if config.weights == "best" and self.best_step:
            extreme = "highest" if figure.higher_is_better else "lowest"
            return f"{ended}; weights of step {self.best_step} are kept, where {figure.name} was {extreme}"
        unknown = f", because {figure.name} was never a number" if config.weights == "best" else ""
        return f"{ended}; weights of step {self.last_step} are kept{unknown}"

    def _is_better(self, figure: float, other: float, least: float) -> bool:
        """By more than `least`; any number is better than none."""
        gained = figure - other if FIGURES[self.config.figure].higher_is_better else other - figure
        return math.isfinite(figure) and (math.isnan(other) or gained > least)
