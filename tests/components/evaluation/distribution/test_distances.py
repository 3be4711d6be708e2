"""Frechet's distance and KID, against closed forms and torchmetrics; and their intervals, against repeated draws."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from components.evaluation.distribution import distances
from components.evaluation.distribution.distances import Gaussian, frechet, frechet_of, gaussian_of, kid

SEED = 41


class Given(nn.Module):
    """In Inception's place: what torchmetrics is given are features already."""

    num_features = 5

    def forward(self, features: Tensor) -> Tensor:
        return features


@pytest.fixture
def sets() -> tuple[np.ndarray, np.ndarray]:
    """[40, 5] and [30, 5], correlated each in its own way."""
    rng = np.random.default_rng(SEED)
    return rng.normal(size=(40, 5)) @ rng.normal(size=(5, 5)), rng.normal(0.5, 1, size=(30, 5)) @ rng.normal(size=(5, 5))


def exactly(mean: list[float], deviations: list[float]) -> np.ndarray:
    """Vectors [50, D] of just this mean and diagonal covariance."""
    drawn = np.random.default_rng(SEED).normal(size=(50, len(mean)))
    centred = drawn - drawn.mean(0)
    white = centred @ np.linalg.inv(np.linalg.cholesky(np.cov(centred, rowvar=False))).T
    return white * deviations + mean


def test_between_two_gaussians_it_is_the_closed_form() -> None:
    one, other = exactly([0.0, 1.0, 2.0], [1.0, 2.0, 0.5]), exactly([1.0, 1.0, 0.0], [3.0, 2.0, 1.0])
    # |m1 - m2|^2 = 1 + 4, and (s1 - s2)^2 = 4 + 0 + 0.25.
    assert frechet(one, other, SEED).value == pytest.approx(9.25)


def test_of_fewer_vectors_than_numbers_it_is_the_same_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = np.random.default_rng(SEED).normal([[[0.0]], [[1.0]]], size=(2, 9, 12))
    few = frechet(one, other[:8], SEED)
    monkeypatch.setattr(distances, "_between_few", distances._between_many)
    many = frechet(one, other[:8], SEED)
    assert few.value == pytest.approx(many.value, rel=1e-6)
    assert few.interval == pytest.approx(many.interval, rel=1e-6)


def test_covariances_that_do_not_commute_are_scipys_square_root_and_torchmetrics(sets: tuple[np.ndarray, np.ndarray]) -> None:
    one, other = sets
    first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    root = np.real(np.asarray(linalg.sqrtm(first @ second)))
    wanted = np.square(one.mean(0) - other.mean(0)).sum() + np.trace(first + second - 2 * root)
    found = frechet(one, other, SEED).value
    assert found == pytest.approx(wanted, rel=1e-9)
    theirs = FrechetInceptionDistance(feature=Given(), normalize=True).set_dtype(torch.float64)
    theirs.update(torch.tensor(other), real=True)
    theirs.update(torch.tensor(one), real=False)
    assert found == pytest.approx(float(theirs.compute()), rel=1e-6)


def test_the_kernels_distance_is_a_double_sum_without_the_diagonal(sets: tuple[np.ndarray, np.ndarray]) -> None:
    one, other = sets

    def mean(xs: np.ndarray, ys: np.ndarray, same: bool) -> float:
        return np.mean([(x @ y / 5 + 1) ** 3 for i, x in enumerate(xs) for j, y in enumerate(ys) if not same or i != j]).item()

    wanted = mean(one, one, True) + mean(other, other, True) - 2 * mean(one, other, False)
    assert kid(one, other, SEED).value == pytest.approx(wanted)
    theirs = KernelInceptionDistance(feature=Given(), normalize=True, subsets=1, subset_size=30)
    theirs.update(torch.tensor(other), real=True)
    theirs.update(torch.tensor(one[:30]), real=False)
    assert kid(one[:30], other, SEED).value == pytest.approx(float(theirs.compute()[0]), rel=1e-6)


def test_equal_sets_are_no_distance_apart_and_sets_of_one_kind_are_none_on_average(
    sets: tuple[np.ndarray, np.ndarray],
) -> None:
    assert frechet(sets[0], sets[0], SEED).value == pytest.approx(0, abs=1e-9)
    draws = np.random.default_rng(SEED).normal(size=(300, 2, 12, 3))
    values = [kid(one, other, SEED).value for one, other in draws]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))
    assert min(values) < 0


def test_a_vector_counted_twice_is_a_vector_that_is_there_twice(sets: tuple[np.ndarray, np.ndarray]) -> None:
    counts = np.random.default_rng(SEED).integers(0, 3, size=(1, 40))
    counted, repeated = gaussian_of(sets[0], counts.astype(float)), np.repeat(sets[0], counts[0], axis=0)
    np.testing.assert_allclose(counted.mean[0], repeated.mean(0))
    np.testing.assert_allclose(counted.covariance[0], np.cov(repeated, rowvar=False))


def test_a_direction_without_variance_is_no_difficulty() -> None:
    flat, point = Gaussian(np.zeros(2), np.diag([4.0, 0.0])), Gaussian(np.zeros(2), np.zeros((2, 2)))
    assert float(frechet_of(flat, flat)) == pytest.approx(0)
    assert float(frechet_of(flat, point)) == float(frechet_of(point, flat)) == 4


@pytest.mark.parametrize("distance", [frechet, kid])
def test_an_interval_is_as_wide_as_new_samples_differ(distance: distances.Measure) -> None:
    draws = np.random.default_rng(SEED).normal(size=(60, 2, 50, 2)) + np.array([[[0.0]], [[1.0]]])
    found = [distance(one, other, SEED) for one, other in draws]
    spread = np.std([each.value for each in found])
    intervals = [each.interval for each in found if each.interval]
    widths = [each.high - each.low for each in intervals]
    assert np.mean(widths) == pytest.approx(2 * 1.96 * spread, rel=0.3)
    assert all(low < each.value < high for each, (low, high, _) in zip(found, intervals, strict=True))
    assert intervals[0].num_items == 50
    one, other = draws[0]
    assert distance(one, other, SEED) == found[0] != distance(one, other, SEED + 1)


def test_a_kernel_in_blocks_is_the_whole_kernel(sets: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = kid(*sets, SEED)
    # 7 rows of 30 at a time, so that the last block is a smaller one.
    monkeypatch.setattr(distances, "KERNEL_ENTRIES", 7 * 30)
    blocks = kid(*sets, SEED)
    assert blocks.value == pytest.approx(whole.value, rel=1e-9)
    assert blocks.interval == pytest.approx(whole.interval, rel=1e-9)


def test_no_whole_kernel_of_many_vectors_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of all resamples it would take seconds.
    monkeypatch.setattr(distances, "NUM_RESAMPLES", 10)
    one, other = np.random.default_rng(SEED).normal(size=(2, 3000, 2))
    tracemalloc.start()
    try:
        kid(one, other, SEED)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The three kernels alone would be 216 MB.
    assert most < 160e6


def test_a_distance_that_would_be_resampled_for_hours_has_no_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "LARGEST_RESAMPLED", 8)
    drawn = np.random.default_rng(SEED).normal(size=(2, 20, 9))
    found = frechet(drawn[0], drawn[1], SEED)
    assert found.value > 0 and found.interval is None
    # Any one of the three keeps the decomposed matrix small.
    smaller = (drawn[0, :, :8], drawn[1, :, :8]), (drawn[0, :8], drawn[1]), (drawn[0], drawn[1, :8])
    assert all(frechet(one, other, SEED).interval for one, other in smaller)


def test_resamples_of_one_vector_alone_are_left_out() -> None:
    # Of two vectors every second resample has no pairs, of the six that distances are measured of at least one in 8,000.
    for num in (2, 3, 6):
        one, other = np.random.default_rng([SEED, num]).normal(size=(2, num, 3))
        found = kid(one, other, SEED)
        assert found.interval and np.isfinite([found.value, found.interval.low, found.interval.high]).all()
