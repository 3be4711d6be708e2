"""CIDEr-D is what COCO's own code computes, and falls when references are another picture's."""

from __future__ import annotations

import numpy as np
import pytest

from components.evaluation.captions.cider import cider
from components.evaluation.captions.words import words_of_caption
from tests.components.evaluation.captions.examples import EXAMPLES

CANDIDATES = [words_of_caption(each.generated) for each in EXAMPLES]
REFERENCES = [[words_of_caption(text) for text in each.references] for each in EXAMPLES]


def test_scores_are_those_of_cocos_own_code() -> None:
    assert cider(CANDIDATES, REFERENCES) == pytest.approx([each.cider for each in EXAMPLES], rel=1e-9)


def test_other_pictures_references_score_worse() -> None:
    shuffled = cider(CANDIDATES, REFERENCES[1:] + REFERENCES[:1])
    assert shuffled.mean() < 0.2 * cider(CANDIDATES, REFERENCES).mean()


def test_a_caption_that_is_the_only_reference_has_ten_and_a_shorter_one_the_share_of_its_orders() -> None:
    words = [("a", "red", "three", "left"), ("two", "cats"), ("train",)]
    assert cider(words, [[each] for each in words]) == pytest.approx([10, 5, 2.5])


def test_one_picture_says_nothing_of_what_is_rare() -> None:
    assert np.array_equal(cider([("a", "cat")], [[("a", "cat")]]), [0])
