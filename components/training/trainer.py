"""The loop of every training: one step after the other, and what is due after some of them.

A training is the same on one worker and on many: whatever a step draws is a pure function of (seed, step), and losses are means
over the step's samples on all workers. A restart therefore needs the weights, the optimisers' moments and the step alone.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

from core.errors import BadInput


class Every(NamedTuple):
    """Something to do after every so many steps; all workers do it after the same ones, so it may add up what they know."""

    num_steps: int
    action: Callable[[int], object]
    """Called with the step."""
    and_last: bool = True
    """Whether it is done after the last step too, whatever its number."""
    takes_long: bool = True
    """Whether a worker may be at it for much longer than a step, and others wait for it (watchdog.py)."""

    def is_due(self, step: int, last_step: int) -> bool:
        """Whether it is done after `step`."""
        return step % self.num_steps == 0 or (self.and_last and step == last_step)


class Trainer(ABC):
    """One worker's part in a training. A subclass knows the step of its model."""

    remedy: ClassVar[str]
    """What to do where a gradient is not finite."""

    def __init__(self, max_steps: int) -> None:
        self.max_steps = max_steps

    @abstractmethod
    def train_step(self, step: int) -> float:
        """Take optimiser step `step`; returns the gradient's norm before clipping. No weight moves where it is not finite."""

    @property
    def last_step(self) -> int:
        """After which the training ends; what is done after a step may bring it forward to that step."""
        return self.max_steps

    def run(self, schedule: Sequence[Every], *, first_step: int) -> None:
        """Train from first_step (the first of all is 1) to the last step, which an action may bring forward."""
        step = first_step
        while step <= self.last_step:
            gradient_norm = self.train_step(step)
            if not math.isfinite(gradient_norm):
                raise BadInput(f"the gradient of step {step} is not finite; {self.remedy}")
            for every in schedule:
                if every.is_due(step, self.last_step):
                    every.action(step)
            step += 1
