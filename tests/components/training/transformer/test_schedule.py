"""The rate of every step, by warm-up, cosine and the stable rate's decay."""

from __future__ import annotations

import math

import pytest

from components.training.transformer.config import ScheduleConfig, TrainConfig
from components.training.transformer.schedule import learning_rate
from tests.components.training.conftest import CONFIG, changed


def rates(config: TrainConfig, *steps: int) -> list[float]:
    return [learning_rate(config, step) for step in steps]


def wsd(decay_type: str, **changes: object) -> TrainConfig:
    schedule = ScheduleConfig(kind="wsd", decay_ratio=0.2, decay_type=decay_type)  # type: ignore[arg-type]
    times = {"max_steps": 100, "warmup_steps": 10, "learning_rate": 1.0, "min_learning_rate": 0.0}
    return changed(schedule=schedule, **(times | changes))


def test_the_rate_warms_up_and_falls_by_a_cosine() -> None:
    config = changed(max_steps=103, warmup_steps=3, learning_rate=1.0, min_learning_rate=0.1)
    assert rates(config, 1, 2, 3) == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert learning_rate(config, 53) == pytest.approx(0.55)
    assert learning_rate(config, 28) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)
    assert learning_rate(config, 103) == pytest.approx(0.1)
    assert learning_rate(changed(warmup_steps=0), 1) < CONFIG.learning_rate


def test_the_stable_rate_stays_until_the_last_fifth_of_the_steps() -> None:
    for config in (wsd("linear"), wsd("sqrt")):
        assert rates(config, 5, 10, 11, 50, 80) == [0.5, 1.0, 1.0, 1.0, 1.0]
        assert 0.7 < learning_rate(config, 81) < 1.0
        assert learning_rate(config, 100) == 0.0


def test_it_falls_in_a_line_or_as_one_less_the_root() -> None:
    assert rates(wsd("linear"), 85, 90, 95) == pytest.approx([0.75, 0.5, 0.25])
    # arXiv 2405.18392, eq. 1: 1 - sqrt((n - (N - N_decay)) / N_decay), here of N 100 and N_decay 20.
    assert rates(wsd("sqrt"), 85, 90, 95) == pytest.approx([0.5, 1 - math.sqrt(0.5), 1 - math.sqrt(0.75)])
    assert learning_rate(wsd("linear", min_learning_rate=0.2), 90) == pytest.approx(0.6)


def test_a_longer_training_begins_as_a_shorter_one() -> None:
    """What the stable rate is for: up to its decay nothing depends on how long the training is."""
    steps = range(1, 81)
    assert rates(wsd("sqrt"), *steps) == rates(wsd("sqrt", max_steps=400), *steps)


def test_a_decay_that_overlaps_the_warm_up_is_refused() -> None:
    assert wsd("linear", warmup_steps=80).num_decay_steps == 20
    with pytest.raises(ValueError, match=r"schedule.decay_ratio: 0.2 of max_steps 100 are 20 steps.*takes 81"):
        wsd("linear", warmup_steps=81)
    # A short training has one step of it at least.
    assert wsd("linear", max_steps=2, warmup_steps=1).num_decay_steps == 1
