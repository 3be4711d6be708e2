"""CIDEr-D (Vedantam et al., arXiv 1411.5726, Sec. 5.1), as COCO's caption evaluation computes it.

Both captions are vectors of their n-grams, each n-gram weighed by how few pictures' references have it; their similarity is a
clipped cosine with a penalty for another length, meant over n of 1 to 4 and over the references, times ten. Where the published
formula and the code of pycocoevalcap differ, the code is followed, for its numbers are the ones that papers print (times 100).

Legend: N pictures.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from components.evaluation.captions.words import Words

MAX_ORDER = 4
# Of the penalty, in words.
SIGMA = 6.0
SCALE = 10.0

Gram = tuple[str, ...]


class _Vector(NamedTuple):
    """A caption."""

    weights: dict[Gram, float]
    norms: tuple[float, ...]
    """Of the n-grams of each order."""
    num_bigrams: int
    """What that code takes for the length."""


def cider(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> np.ndarray:
    """The score of each candidate against its picture's references, 0..10: float64 [N].

    How rare an n-gram is, these references say. Of one picture alone they say nothing, and its score is 0.
    """
    frequency = Counter(gram for every in references for gram in {gram for one in every for gram in _grams(one)})
    log_num = math.log(len(references))
    log_frequency = {gram: math.log(number) for gram, number in frequency.items()}

    def vector(words: Words) -> _Vector:
        counts = Counter(_grams(words))
        weights = {gram: count * (log_num - log_frequency.get(gram, 0.0)) for gram, count in counts.items()}
        return _Vector(weights, _norms(weights), sum(count for gram, count in counts.items() if len(gram) == 2))

    return np.array([_score(vector(one), map(vector, every)) for one, every in zip(candidates, references, strict=True)])


def _grams(words: Words) -> Iterable[Gram]:
    return (words[at : at + order] for order in range(1, MAX_ORDER + 1) for at in range(len(words) - order + 1))


def _norms(weights: dict[Gram, float]) -> tuple[float, ...]:
    return tuple(
        math.sqrt(sum(value * value for gram, value in weights.items() if len(gram) == order))
        for order in range(1, MAX_ORDER + 1)
    )


def _score(candidate: _Vector, references: Iterable[_Vector]) -> float:
    scores = [_similarity(candidate, reference) for reference in references]
    return SCALE * sum(scores) / len(scores)


def _similarity(candidate: _Vector, reference: _Vector) -> float:
    products = [0.0] * MAX_ORDER
    for gram, weight in candidate.weights.items():
        wanted = reference.weights.get(gram, 0.0)
        # Clipped, so that a word said again and again gains nothing.
        products[len(gram) - 1] += min(weight, wanted) * wanted
    norms = [one * other for one, other in zip(candidate.norms, reference.norms, strict=True)]
    cosines = [product / norm if norm else 0.0 for product, norm in zip(products, norms, strict=True)]
    difference = candidate.num_bigrams - reference.num_bigrams
    return math.exp(-(difference**2) / (2 * SIGMA**2)) * sum(cosines) / MAX_ORDER
