"""The loop takes every step once, in order, does what is due in the order given, and stops at a gradient that is not finite."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from components.training.trainer import Every, Trainer
from core.errors import BadInput


class Counting(Trainer):
    """A trainer whose gradient is not finite at one step, and which goes back behind others, once each."""

    remedy = "count slower"

    def __init__(self, max_steps: int, *, fails_at: int = 0, goes_back: dict[int, int] | None = None) -> None:
        super().__init__(max_steps)
        self.fails_at, self.done, self.goes_back, self.says_judged = fails_at, list[str](), goes_back or {}, False

    def train_step(self, step: int) -> Tensor:
        self.done.append(f"step {step}")
        return torch.tensor([math.inf if step == self.fails_at else 1.0], dtype=torch.float64)

    def judge(self, step: int, numbers: Sequence[float]) -> int:
        if self.says_judged:
            self.done.append(f"judge {step}")
        if step in self.goes_back:
            return self.goes_back.pop(step)
        return super().judge(step, numbers)

    def note(self, what: str, num_steps: int, *, and_last: bool = True) -> Every:
        return Every(num_steps, lambda step: self.done.append(f"{what} {step}"), and_last)


def test_what_is_due_follows_its_step_in_the_order_given() -> None:
    trainer = Counting(max_steps=7)
    schedule = [trainer.note("log", 2), trainer.note("restart", 3, and_last=False), trainer.note("save", 4)]
    trainer.run(schedule, first_step=3)
    expected = "step 3, restart 3, step 4, log 4, save 4, step 5, step 6, log 6, restart 6, step 7, log 7, save 7"
    assert trainer.done == expected.split(", ")


def test_a_run_that_reached_its_end_takes_no_step() -> None:
    trainer = Counting(max_steps=7)
    trainer.run([trainer.note("save", 1)], first_step=8)
    assert trainer.done == []


def test_nothing_is_kept_after_a_gradient_that_is_not_finite() -> None:
    trainer = Counting(max_steps=7, fails_at=2)
    with pytest.raises(BadInput, match="the gradient of step 2 is not finite; count slower"):
        trainer.run([trainer.note("save", 1)], first_step=1)
    assert trainer.done == ["step 1", "save 1", "step 2"]


def test_a_step_is_judged_while_the_next_is_under_way_and_before_anything_is_done_with_it() -> None:
    trainer = Counting(max_steps=5)
    trainer.says_judged = True
    trainer.run([trainer.note("save", 3)], first_step=1)
    expected = "step 1, step 2, judge 1, step 3, judge 2, judge 3, save 3, step 4, step 5, judge 4, judge 5, save 5"
    assert trainer.done == expected.split(", ")


def test_a_training_that_goes_back_does_nothing_with_the_steps_it_leaves() -> None:
    trainer = Counting(max_steps=6, goes_back={4: 2})
    trainer.run([trainer.note("save", 5)], first_step=1)
    # Step 5 was under way when step 4 was judged.
    expected = "step 1, step 2, step 3, step 4, step 5, step 3, step 4, step 5, save 5, step 6, save 6"
    assert trainer.done == expected.split(", ")
