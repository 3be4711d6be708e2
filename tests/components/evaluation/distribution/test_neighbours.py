"""Precision, recall, density and coverage, against loops over their definitions, and where the answer is plain."""

from __future__ import annotations

import numpy as np

from components.evaluation.distribution.neighbours import neighbourhood, radii

SEED = 43


def test_they_are_what_their_papers_define() -> None:
    rng = np.random.default_rng(SEED)
    generated, real = rng.normal(1.2, 0.8, size=(17, 3)), rng.normal(size=(23, 3))

    def distance(one: np.ndarray, other: np.ndarray) -> float:
        return float(np.linalg.norm(one - other))

    def reach(vectors: np.ndarray, index: int, nearest: int) -> float:
        return sorted(distance(vectors[index], other) for number, other in enumerate(vectors) if number != index)[nearest - 1]

    found = neighbourhood(generated, real)
    precision = [any(distance(g, r) <= reach(real, j, 3) for j, r in enumerate(real)) for g in generated]
    recall = [any(distance(g, r) <= reach(generated, i, 3) for i, g in enumerate(generated)) for r in real]
    density = [sum(distance(g, r) <= reach(real, j, 5) for j, r in enumerate(real)) / 5 for g in generated]
    coverage = [any(distance(g, r) <= reach(real, j, 5) for g in generated) for j, r in enumerate(real)]
    for ours, wanted in zip(found, (precision, recall, density, coverage), strict=True):
        assert ours.tolist() == wanted
        assert 0 < np.mean(wanted) and 0 < np.std(wanted), "or the comparison says nothing"


def test_equal_sets_lie_in_each_other_and_far_ones_do_not() -> None:
    vectors = np.random.default_rng(SEED).normal(size=(30, 4))
    same, far = neighbourhood(vectors, vectors), neighbourhood(vectors + 50, vectors)
    assert same.precision.mean() == same.recall.mean() == same.coverage.mean() == 1
    # A vector lies in its own ball, and on average in those of five others.
    assert same.density.mean() == 6 / 5
    assert not np.concatenate(far).any()


def test_a_few_pictures_over_and_over_are_precise_and_cover_little() -> None:
    real = np.random.default_rng(SEED).normal(size=(60, 2))
    found = neighbourhood(np.repeat(real[:4], 15, axis=0), real)
    assert found.precision.mean() == 1
    assert found.recall.mean() < 0.1 and found.coverage.mean() < 0.6


def test_a_vector_is_no_neighbour_of_its_own_but_its_equal_is() -> None:
    assert radii(np.array([[0.0], [0.0], [1.0]]), 1).tolist() == [0, 0, 1]
