"""Intervals of figures measured item by item, against scipy's bootstrap and a known spread."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from components.evaluation.intervals import Interval, interval, interval_of, items_file, items_from, items_of, resamples

SEED = 23


def ratio(top: np.ndarray, bottom: np.ndarray, axis: int = -1) -> np.ndarray:
    return top.sum(axis) / bottom.sum(axis)


@pytest.mark.parametrize("num_items", [24, 300])
def test_the_interval_of_a_ratio_is_that_of_scipys_bootstrap(num_items: int) -> None:
    rng = np.random.default_rng(num_items)
    bottom = rng.integers(1, 9, num_items).astype(float)
    top = bottom * rng.beta(2, 5, num_items)
    items = items_of([str(number) for number in range(num_items)], top, bottom)
    ours = interval_of(items, SEED)
    theirs = stats.bootstrap(
        (top, bottom), ratio, paired=True, vectorized=True, n_resamples=20_000, batch=500, method="percentile", rng=rng
    )
    low, high = theirs.confidence_interval
    assert ours is not None and ours.low < items.value < ours.high and ours.num_items == num_items
    # Of 2,000 resamples a percentile is known to a tenth of the interval's width.
    assert ours[:2] == pytest.approx((low, high), abs=0.1 * (high - low))


def test_the_same_seed_draws_the_same_and_another_seed_does_not() -> None:
    items = items_of(list("abcdefgh"), np.random.default_rng(SEED).normal(size=8), np.ones(8))
    assert interval_of(items, SEED) == interval_of(items, SEED) != interval_of(items, SEED + 1)
    drawn = np.concatenate(list(resamples(8, SEED)))
    assert drawn.shape == (2000, 8) and set(drawn.ravel()) == set(range(8))


def test_a_figure_that_is_no_ratio_has_an_interval_as_well() -> None:
    values = np.random.default_rng(SEED).normal(3, 2, 400)
    found = interval(lambda drawn: np.median(values[drawn], -1), len(values), SEED)
    # The median's standard error of a normal sample is sqrt(pi / 2) that of its mean.
    spread = 1.96 * np.sqrt(np.pi / 2) * 2 / np.sqrt(len(values))
    assert found is not None and found.high - found.low == pytest.approx(2 * spread, rel=0.25)


def test_items_that_came_out_alike_have_an_interval_of_no_width_and_one_item_has_none() -> None:
    assert interval_of(items_of(["a", "b"], [1, 2], [1, 2]), SEED) == Interval(1.0, 1.0, 2)
    assert interval_of(items_of(["a"], [1], [1]), SEED) is None


def test_items_come_back_from_their_file() -> None:
    first, second = items_of(["x", "y"], [0.1, 2], [3, 4]), items_of(["z"], [5], [6])
    back = items_from(items_file({"b": first, "a": second}))
    assert list(back) == ["a", "b"] and back["a"].names == ("z",) and back["b"].top.tolist() == [0.1, 2]
    assert back["b"].bottom.tolist() == [3, 4]


def test_items_are_of_one_length() -> None:
    with pytest.raises(ValueError, match="2 names, 1 and 2 numbers"):
        items_of(["a", "b"], [1], [1, 2])
