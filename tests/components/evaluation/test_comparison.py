"""Two models are compared on the same items in pairs, and on nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from components.evaluation.comparison import compares, gain, why_apart
from components.evaluation.intervals import Items, interval_of, items_of
from components.evaluation.kept_items import KeptItems

NAMES = [f"item {number}" for number in range(200)]
RIGHT, ERROR = "text_to_image/objects_right", "image/diffusion_loss"
KEPT = KeptItems({}, "d", {"seed": 17, "num_captions": 4}, {"autoencoder": "a", "prediction_type": "flow"})


def items(values: np.ndarray) -> Items:
    return items_of(NAMES[: len(values)], values, np.ones(len(values)))


def noise() -> np.ndarray:
    return np.random.default_rng(3).normal(size=len(NAMES))


def test_what_makes_an_item_hard_for_both_cancels_out() -> None:
    hard = 10 * noise()
    mine, theirs = items(hard + 0.5), items(hard)
    found = gain(RIGHT, mine, theirs)
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
    alone = interval_of(mine, 0)
    assert alone is not None and alone.high - alone.low > 1


def test_the_interval_is_that_of_a_mean_of_differences() -> None:
    """Beside the normal approximation, which holds for so many."""
    difference = noise()
    found = gain(RIGHT, items(difference), items(np.zeros(len(NAMES))))
    assert found is not None and found.num_items == len(NAMES)
    error = difference.std() / np.sqrt(len(NAMES))
    assert found.value == pytest.approx(difference.mean())
    assert (found.low, found.high) == pytest.approx((found.value - 1.96 * error, found.value + 1.96 * error), abs=0.15 * error)


def test_less_of_an_error_is_a_gain() -> None:
    found = gain(ERROR, items(noise() - 1), items(noise()))
    assert found is not None and found.value == pytest.approx(1) and found.low > 0.9


def test_items_are_paired_by_name_and_not_by_place() -> None:
    values = noise()
    theirs = items_of(NAMES[::-1], values[::-1], np.ones(len(NAMES)))
    found = gain(RIGHT, items(values), theirs)
    assert found is not None and (found.low, found.high) == pytest.approx((0, 0), abs=1e-12)


def test_other_items_and_one_alone_are_not_compared() -> None:
    values = noise()
    assert gain(RIGHT, items(values), items(values[:-1])) is None
    other = items_of([*NAMES[:-1], "another"], values, np.ones(len(NAMES)))
    assert gain(RIGHT, items(values), other) is None
    assert gain(RIGHT, items(values[:1]), items(values[:1])) is None


def test_other_data_and_other_settings_are_named() -> None:
    assert why_apart(KEPT, KEPT) == ""
    assert "other held-out documents (digest e, and here d)" in why_apart(KEPT, KEPT._replace(held_out="e"))
    reseeded = KEPT._replace(settings={"seed": 18, "num_captions": 4})
    assert why_apart(KEPT, reseeded) == "with other settings (evaluate.seed 18, and here 17)"
    before = KEPT._replace(settings={"seed": 17})
    assert why_apart(KEPT, before) == "", "a measurement that came later changes none of the others"


def test_errors_of_latents_are_compared_within_one_autoencoder_and_process() -> None:
    both = KEPT._replace(items={RIGHT: items(noise()), ERROR: items(noise())})
    assert compares(ERROR, both, both) and not compares("text/bits_per_byte", both, both)
    for change in ({"autoencoder": "b"}, {"prediction_type": "epsilon"}):
        other = both._replace(latents={**KEPT.latents, **change})
        assert not compares(ERROR, both, other) and compares(RIGHT, both, other)
