"""Distances between two sets of feature vectors: Frechet's, and the kernel's (KID).

Their intervals come from resampling both sets. A resample holds some pictures twice, so it is farther from the other set than
the pictures are; the interval is that of the resamples, moved by as much as their mean lies off the value.

Legend: N vectors of one set, M of the other, D numbers of a vector, R resamples; all float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from components.evaluation.intervals import Interval, ends_of
from core.random import generator

NUM_RESAMPLES = 200
# Sides of the matrix that a Frechet distance decomposes, up to which it is resampled: 200 times 2048 take hours.
LARGEST_RESAMPLED = 512
# Of a kernel that are held at a time: 32 MiB, and all where the sets have 2,048 vectors.
KERNEL_ENTRIES = 2**22
# Of the generator's key, next to that of the intervals of single items.
STREAM = 78


class Distance(NamedTuple):
    value: float
    interval: Interval | None
    """None where resampling would take too long."""


Measure = Callable[[np.ndarray, np.ndarray, int], Distance]


class Gaussian(NamedTuple):
    """The normal distribution that a set is taken for."""

    mean: np.ndarray
    """[..., D]."""
    covariance: np.ndarray
    """[..., D, D], of a sample: over N - 1."""


def frechet(one: np.ndarray, other: np.ndarray, seed: int) -> Distance:
    """Frechet's distance, squared as FID has it, between the normal distributions of vectors [N, D] and [M, D].

    It has no interval where N, M and D are all above LARGEST_RESAMPLED.
    """
    between = _between_few if one.shape[1] > min(len(one), len(other)) else _between_many
    value = between(one, other, _once(one), _once(other))
    if min(len(one), len(other), one.shape[1]) > LARGEST_RESAMPLED:
        return Distance(value, None)
    first, second = _counts(len(one), len(other), seed)
    resampled = [between(one, other, mine, yours) for mine, yours in zip(first[:, None], second[:, None], strict=True)]
    return _with_interval(value, np.array(resampled), len(one), least=0.0)


def kid(one: np.ndarray, other: np.ndarray, seed: int) -> Distance:
    """The unbiased squared maximum mean discrepancy under KID's kernel, (x . y / D + 1)^3 (arXiv 1801.01401), of all pairs.

    It may be below 0 where the sets are alike. Of two vectors or more, each set.
    """
    first, second = _counts(len(one), len(other), seed)
    # What holds one vector alone, as some of few do, has no pairs.
    paired = (first.max(-1) < len(one)) & (second.max(-1) < len(other))
    first, second = first[paired], second[paired]
    alone = [_within(one, [_once(one), first]), _within(other, [_once(other), second])]
    across = _across(one, other, [(_once(one), _once(other)), (first, second)])
    value, resampled = (mine + yours - 2 * mixed for mine, yours, mixed in zip(*alone, across, strict=True))
    return _with_interval(float(value[0]), resampled, len(one), least=-np.inf)


def frechet_of(one: Gaussian, other: Gaussian) -> np.ndarray:
    """|m1 - m2|^2 + trace(C1 + C2 - 2 (C1 C2)^(1/2)) (Dowson and Landau, 1982), [...]."""
    values, vectors = np.linalg.eigh(one.covariance)
    root = (vectors * np.sqrt(values.clip(0))[..., None, :]) @ vectors.swapaxes(-1, -2)
    # C1 C2 and this symmetric product have the same eigenvalues.
    shared = np.sqrt(np.linalg.eigvalsh(root @ other.covariance @ root).clip(0)).sum(-1)
    traces = np.trace(one.covariance, axis1=-2, axis2=-1) + np.trace(other.covariance, axis1=-2, axis2=-1)
    return np.square(one.mean - other.mean).sum(-1) + traces - 2 * shared


def gaussian_of(vectors: np.ndarray, counts: np.ndarray) -> Gaussian:
    """Of vectors [N, D], each as often as counts [R, N] say."""
    mean = counts @ vectors / counts.sum(-1, keepdims=True)
    centred = vectors - mean[:, None]
    products = (centred * counts[..., None]).swapaxes(-1, -2) @ centred
    return Gaussian(mean, products / (counts.sum(-1)[:, None, None] - 1))


def _between_many(one: np.ndarray, other: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """Frechet's distance of vectors [N, D] and [M, D], each as often as counts [1, N] and [1, M] say."""
    return float(frechet_of(gaussian_of(one, first), gaussian_of(other, second))[0])


def _between_few(one: np.ndarray, other: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """The same where there are fewer vectors than numbers in one: no covariance [D, D] is made.

    With C1 = A'A and C2 = B'B, the roots of the eigenvalues of C1 C2 are the singular values of AB', [N, M].
    """
    (mean, root), (other_mean, other_root) = _root_of(one, first[0]), _root_of(other, second[0])
    shared = np.linalg.svd(root @ other_root.T, compute_uv=False).sum()
    return float(np.square(mean - other_mean).sum() + np.square(root).sum() + np.square(other_root).sum() - 2 * shared)


def _root_of(vectors: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean [D] and A [at most N, D] of which A'A is the covariance."""
    drawn, counts = vectors[counts > 0], counts[counts > 0]
    mean = counts @ drawn / counts.sum()
    return mean, np.sqrt(counts / (counts.sum() - 1))[:, None] * (drawn - mean)


def _within(vectors: np.ndarray, drawn: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The kernel's mean over pairs of one set, [R] of each counts [R, N]; no vector makes a pair with itself or its copies."""
    sums: list[Any] = [0.0] * len(drawn)
    for rows, kernel in _kernel(vectors, vectors):
        for number, counts in enumerate(drawn):
            mine = counts[:, rows]
            sums[number] += (mine @ kernel * counts).sum(-1) - np.square(mine) @ np.diag(kernel[:, rows])
    pairs = [np.square(counts.sum(-1)) - np.square(counts).sum(-1) for counts in drawn]
    return [total / num for total, num in zip(sums, pairs, strict=True)]


def _across(one: np.ndarray, other: np.ndarray, drawn: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """The kernel's mean over pairs of one vector of each set, [R] of each counts [R, N] and [R, M]."""
    sums: list[Any] = [0.0] * len(drawn)
    for rows, kernel in _kernel(one, other):
        for number, (first, second) in enumerate(drawn):
            sums[number] += (first[:, rows] @ kernel * second).sum(-1)
    return [total / (first.sum(-1) * second.sum(-1)) for total, (first, second) in zip(sums, drawn, strict=True)]


def _kernel(one: np.ndarray, other: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Rows of the kernel [N, M], KERNEL_ENTRIES at a time: which they are, and they."""
    num = max(1, KERNEL_ENTRIES // len(other))
    for start in range(0, len(one), num):
        rows = slice(start, start + num)
        yield rows, (one[rows] @ other.T / one.shape[1] + 1) ** 3


def _once(vectors: np.ndarray) -> np.ndarray:
    return np.ones((1, len(vectors)))


def _counts(num_one: int, num_other: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each vector of both sets is taken, [R, N] and [R, M]."""
    rng = generator(seed, STREAM)
    first, second = (rng.multinomial(num, np.full(num, 1 / num), NUM_RESAMPLES) for num in (num_one, num_other))
    return first.astype(np.float64), second.astype(np.float64)


def _with_interval(value: float, resampled: np.ndarray, num_items: int, *, least: float) -> Distance:
    low, high = (end - float(resampled.mean()) + value for end in ends_of(resampled))
    return Distance(value, Interval(max(least, low), high, num_items))
