"""Captions are made from their own picture."""

from __future__ import annotations

import numpy as np

from components.evaluation.captions import caption_images
from core.tokenizer import TextTokenizer
from model.generation.eager import TorchEngine
from model.transfusion import Transfusion


def test_a_caption_is_of_its_picture_alone(tokenizer: TextTokenizer, model: Transfusion) -> None:
    latents = list(np.random.default_rng(1).normal(size=(3, 4, 4, 4)).astype(np.float32))
    engine = TorchEngine(model)
    captions = caption_images(engine, tokenizer, latents, max_new_tokens=6, seed=0, num_slots=2)
    assert captions == caption_images(engine, tokenizer, latents, max_new_tokens=6, seed=9, num_slots=3)
    assert len(set(captions)) > 1, "captions do not depend on the pictures"
