"""Captions are scored exactly, and made from their own picture."""

from __future__ import annotations

import numpy as np
import pytest

from components.data.demonstration.scenes import PHRASINGS, SceneObject, describe
from components.evaluation.captions import caption_images, score_captions
from core.tokenizer import TextTokenizer
from model.generation.eager import TorchEngine
from model.transfusion import Transfusion

THREE = SceneObject(3, "red", "top left")
SEVEN = SceneObject(7, "blue", "bottom right")
BOTH = frozenset({THREE, SEVEN})


@pytest.mark.parametrize("phrasing", range(len(PHRASINGS)))
def test_every_phrasing_of_the_truth_is_right(phrasing: int) -> None:
    assert score_captions([describe([SEVEN, THREE], phrasing)], [BOTH]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("caption", "objects", "readable"),
    [
        ("a red three top left", 1 / 2, 1),  # one missing
        ("a red three top left and a blue six bottom right", 1 / 2, 1),
        ("a red three top left, a cyan one top right and a blue seven bottom right", 2 / 3, 1),  # one too many
        ("a blue seven top left and a red three bottom right", 0, 1),
        ("a red three top left and a blue seven bottom right and", 0, 0),  # not a caption of the corpus
        ("", 0, 0),
    ],
)
def test_mistakes_count(caption: str, objects: float, readable: float) -> None:
    assert score_captions([caption], [BOTH]) == (pytest.approx(objects), 0, readable)


def test_scores_are_over_all_scenes() -> None:
    scores = score_captions([describe([THREE, SEVEN], 0), "nonsense"], [BOTH, frozenset({THREE})])
    assert scores == (pytest.approx(2 / 3), 0.5, 0.5)


def test_a_caption_is_of_its_picture_alone(tokenizer: TextTokenizer, model: Transfusion) -> None:
    latents = list(np.random.default_rng(1).normal(size=(3, 4, 4, 4)).astype(np.float32))
    engine = TorchEngine(model)
    captions = caption_images(engine, tokenizer, latents, max_new_tokens=6, seed=0, num_slots=2)
    assert captions == caption_images(engine, tokenizer, latents, max_new_tokens=6, seed=9, num_slots=3)
    assert len(set(captions)) > 1, "captions do not depend on the pictures"
