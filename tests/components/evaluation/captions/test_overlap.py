"""Shared words are counted as COCO's own code counts them, and sums over pictures make BLEU."""

from __future__ import annotations

import random
from functools import cache

import numpy as np
import pytest

from components.evaluation.captions.overlap import bleu, bleu_counts, exact_match, longest_common, rouge_l
from components.evaluation.captions.words import Words, words_of_caption
from tests.components.evaluation.captions.examples import BLEU_4, EXAMPLES

PAIRS = [(words_of_caption(each.generated), [words_of_caption(text) for text in each.references]) for each in EXAMPLES]


def test_rouge_is_that_of_cocos_own_code() -> None:
    assert [rouge_l(*pair) for pair in PAIRS] == pytest.approx([each.rouge_l for each in EXAMPLES], rel=1e-12)


def test_bleu_of_all_pictures_is_that_of_cocos_own_code() -> None:
    counts = np.array([bleu_counts(*pair) for pair in PAIRS])
    # Its smoothing of empty counts is of the order of 1e-9.
    assert bleu(counts.sum(0, keepdims=True)) == pytest.approx([BLEU_4], rel=1e-8)


def test_bleu_of_resampled_pictures_is_that_of_the_pictures_again() -> None:
    drawn = np.array([[0, 0, 3], [2, 2, 2], [7, 7, 8]])
    counts = np.array([bleu_counts(*pair) for pair in PAIRS])
    again = [np.sum([bleu_counts(*PAIRS[number]) for number in row], axis=0) for row in drawn]
    assert bleu(counts[drawn].sum(1)).tolist() == [float(bleu(row[None])[0]) for row in again]
    # The same words, and no four words in a row.
    assert bleu(counts[drawn].sum(1))[1:] == pytest.approx([1, 0])


def test_only_a_whole_caption_matches() -> None:
    references = [("a", "red", "three"), ("red", "three")]
    assert exact_match(("red", "three"), references)
    for other in ((), ("three",), ("three", "red"), ("a", "red", "three", "left")):
        assert not exact_match(other, references)
        assert rouge_l(other, [()] if not other else references) < 1


def length_by_definition(one: Words, other: Words) -> int:
    @cache
    def length(i: int, j: int) -> int:
        if not i or not j:
            return 0
        if one[i - 1] == other[j - 1]:
            return length(i - 1, j - 1) + 1
        return max(length(i - 1, j), length(i, j - 1))

    return length(len(one), len(other))


def test_the_longest_common_subsequence_is_that_of_the_definition() -> None:
    drawn = random.Random(5)
    for _ in range(200):
        one, other = (tuple(drawn.choices("abcd", k=drawn.randrange(12))) for _ in range(2))
        assert longest_common(one, other) == length_by_definition(one, other), (one, other)
