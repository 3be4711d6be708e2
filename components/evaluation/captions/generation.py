"""Captions of held-out pictures, generated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from components.runtime.progress import report_progress
from core.random import seed_of
from core.tokenizer import TextTokenizer
from model.generation.requests import SamplingOptions, caption_request
from model.generation.sampling import generate
from model.step import Engine


def caption_images(
    engine: Engine,
    tokenizer: TextTokenizer,
    latents: Sequence[np.ndarray],
    *,
    max_new_tokens: int,
    seed: int,
    num_slots: int,
    temperature: float = 0.0,
) -> list[str]:
    """A caption of each picture, of the likeliest tokens or sampled.

    latents: float32 [C, Y, X] each, clean and normalised. temperature: 0 takes the likeliest token; the tokens sampled for
    picture i depend on (seed, i) alone.
    """
    requests = [
        caption_request(engine.config, torch.from_numpy(latent), seed=seed_of(seed, index), max_new_tokens=max_new_tokens)
        for index, latent in enumerate(latents)
    ]
    options = SamplingOptions(num_steps=1, guidance_scale=1.0, temperature=temperature)
    completions = generate(engine, requests, options, num_slots=num_slots, progress=report_progress("captions"))
    return [tokenizer.decode(completion.text.tolist()) for completion in completions]
