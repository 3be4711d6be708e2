"""Captions are made from their own picture."""

from __future__ import annotations

import numpy as np
import pytest

from components.evaluation.captions.generation import caption_images
from core.tokenizer import TextTokenizer
from model.generation.eager import TorchEngine
from model.transfusion import Transfusion


@pytest.fixture
def latents() -> list[np.ndarray]:
    return list(np.random.default_rng(1).normal(size=(3, 4, 4, 4)).astype(np.float32))


def test_a_caption_is_of_its_picture_alone(tokenizer: TextTokenizer, model: Transfusion, latents: list[np.ndarray]) -> None:
    engine = TorchEngine(model)
    captions = caption_images(engine, tokenizer, latents, max_new_tokens=6, seed=0, num_slots=2)
    assert captions == caption_images(engine, tokenizer, latents, max_new_tokens=6, seed=9, num_slots=3)
    assert len(set(captions)) > 1, "captions do not depend on the pictures"


def test_sampled_captions_are_of_their_seed_alone(
    tokenizer: TextTokenizer, model: Transfusion, latents: list[np.ndarray]
) -> None:
    engine = TorchEngine(model)

    def captions(seed: int, num_slots: int) -> list[str]:
        return caption_images(engine, tokenizer, latents, max_new_tokens=6, seed=seed, num_slots=num_slots, temperature=1.0)

    assert captions(0, 1) == captions(0, 3)
    assert captions(0, 3) != captions(1, 3)
