"""The loop of every training: one step after the other, and what is due after some of them.

A training is the same on one worker and on many: whatever a step draws is a pure function of (seed, step), and losses are means
over the step's samples on all workers. A restart therefore needs the weights, the optimisers' moments and the step alone.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

from torch import Tensor

from components.training.late_numbers import LateNumbers
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
        self.late_numbers = LateNumbers()

    @abstractmethod
    def train_step(self, step: int) -> Tensor:
        """Take optimiser step `step` without a wait for the device; no weight moves where the gradient is not finite.

        Returns what `judge` is to know of it, float64 [N].
        """

    def judge(self, step: int, numbers: Sequence[float]) -> int:
        """Look at a step's numbers, when they are there; returns the step that the training goes on behind, mostly this one.

        All workers see the same numbers. The first is the gradient's norm: BadInput where it is not finite.
        """
        if not math.isfinite(numbers[0]):
            raise BadInput(f"the gradient of step {step} is not finite; {self.remedy}")
        return step

    @property
    def last_step(self) -> int:
        """After which the training ends; what is done after a step may bring it forward to that step."""
        return self.max_steps

    def run(self, schedule: Sequence[Every], *, first_step: int) -> None:
        """Train from first_step (the first of all is 1) to the last step, which an action may bring forward."""
        step = first_step
        while step <= self.last_step:
            self.late_numbers.add(step, self.train_step(step))
            is_anything_due = any(every.is_due(step, self.last_step) for every in schedule)
            # Nothing is done with a step that has not been judged; all others are judged while the next one is under way.
            reached = self.judged(step, num_kept=0 if is_anything_due else 1)
            if reached == step:
                for every in schedule:
                    if every.is_due(step, self.last_step):
                        every.action(step)
            step = reached + 1

    def judged(self, step: int, *, num_kept: int) -> int:
        """Judge all steps but the last num_kept; returns the step that training goes on behind, `step` or an earlier one."""
        for taken, numbers in self.late_numbers.take(num_kept):
            if (reached := self.judge(taken, numbers)) < taken:
                self.late_numbers.clear()
                return reached
        return step
