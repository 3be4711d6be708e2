"""Precision, recall, density and coverage: which pictures lie where those of the other set do, by nearest neighbours.

A set's region is made of balls, one around each of its vectors, as far as its k-th nearest neighbour in the set.

Legend: N generated and M real vectors of D numbers; distances are squared.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Of improved precision and recall (arXiv 1904.06991, Sec. 4), and of density and coverage (arXiv 2002.09797, Sec. 4).
NEAREST_OF_REGION, NEAREST_OF_DENSITY = 3, 5


class Neighbourhood(NamedTuple):
    """Of each vector what is averaged for the figure of that name, float64."""

    precision: np.ndarray
    """[N], 1 where a generated vector lies in the real region."""
    recall: np.ndarray
    """[M], 1 where a real vector lies in the generated region."""
    density: np.ndarray
    """[N], real balls around a generated vector, over k: 1 on average where the sets are alike, and more is possible."""
    coverage: np.ndarray
    """[M], 1 where a real vector's ball holds a generated one."""


def neighbourhood(generated: np.ndarray, real: np.ndarray) -> Neighbourhood:
    """Of vectors [N, D] and [M, D]; more than NEAREST_OF_DENSITY of each."""
    between = squared_distances(generated, real)
    real_radii = radii(real, NEAREST_OF_DENSITY)
    inside = between <= real_radii
    return Neighbourhood(
        precision=np.any(between <= radii(real, NEAREST_OF_REGION), axis=1).astype(np.float64),
        recall=np.any(between <= radii(generated, NEAREST_OF_REGION)[:, None], axis=0).astype(np.float64),
        density=inside.sum(1) / NEAREST_OF_DENSITY,
        coverage=(between.min(0) <= real_radii).astype(np.float64),
    )


def radii(vectors: np.ndarray, nearest: int) -> np.ndarray:
    """[N]: the squared distance of each to its `nearest`-th neighbour among the others."""
    distances = squared_distances(vectors, vectors)
    # Not itself, even where rounding says that another one is nearer.
    np.fill_diagonal(distances, np.inf)
    return np.partition(distances, nearest - 1, axis=1)[:, nearest - 1]


def squared_distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """[N, M]."""
    products = np.square(one).sum(1)[:, None] + np.square(other).sum(1) - 2 * one @ other.T
    return products.clip(0)
