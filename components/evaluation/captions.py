"""Captions of held-out pictures, generated, parsed exactly and scored by what the pictures show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from components.data.demonstration.scenes import SceneObject, read_caption
from components.runtime.progress import report_progress
from core.random import seed_of
from core.tokenizer import TextTokenizer
from model.generation.requests import SamplingOptions, caption_request
from model.generation.sampling import generate
from model.step import Engine


class CaptionScores(NamedTuple):
    """Shares in 0..1."""

    objects: float
    """Named in digit, colour and place; an object too many counts as a wrong one."""
    scenes: float
    """Captions that name exactly the objects."""
    readable: float
    """Captions in one of the corpus's phrasings."""


def caption_images(
    engine: Engine,
    tokenizer: TextTokenizer,
    latents: Sequence[np.ndarray],
    *,
    max_new_tokens: int,
    seed: int,
    num_slots: int,
) -> list[str]:
    """The likeliest-token caption of each picture; latents: float32 [C, Y, X] each, clean and normalised."""
    requests = [
        caption_request(engine.config, torch.from_numpy(latent), seed=seed_of(seed, index), max_new_tokens=max_new_tokens)
        for index, latent in enumerate(latents)
    ]
    options = SamplingOptions(num_steps=1, guidance_scale=1.0)
    completions = generate(engine, requests, options, num_slots=num_slots, progress=report_progress("captions"))
    return [tokenizer.decode(completion.text.tolist()) for completion in completions]


def score_captions(captions: Sequence[str], truth: Sequence[frozenset[SceneObject]]) -> CaptionScores:
    """Compare captions with what the pictures show; a caption that is no caption of the corpus names nothing."""
    parsed = [read_caption(caption) for caption in captions]
    named = [found or frozenset() for found in parsed]
    num_right = sum(len(found & real) for found, real in zip(named, truth, strict=True))
    num_counted = sum(max(len(found), len(real)) for found, real in zip(named, truth, strict=True))
    return CaptionScores(
        objects=num_right / num_counted,
        scenes=sum(found == real for found, real in zip(named, truth, strict=True)) / len(truth),
        readable=sum(found is not None for found in parsed) / len(parsed),
    )
