"""How much of a cache a request may fill, beside the longest sequence that it allows, spelt out position by position."""

from __future__ import annotations

import random

import pytest
import torch

from model.config import Modality, ModelConfig
from model.generation.requests import Latent, Request
from tests.model.conftest import tiny_config

IMAGE = Modality(
    name="image", channels=2, patch_size=(2, 3), patch_layers="linear", unet_channels=(), begin_token_id=3, end_token_id=4
)
AUDIO = Modality(
    name="audio", channels=1, patch_size=(4,), patch_layers="linear", unet_channels=(), begin_token_id=5, end_token_id=6
)
CONFIG = tiny_config(modalities=(IMAGE, AUDIO))


def between_markers(modality: Modality, axes: tuple[int, ...]) -> list[str]:
    """A latent's positions: each patch begins at a multiple of the patch's size."""
    begins = [range(0, length, side) for length, side in zip(axes, modality.patch_size, strict=True)]
    patches = ["patch" for at in begins[0] for _ in (begins[1] if len(begins) > 1 else [at])]
    return ["begin", *patches, "end"]


def longest(request: Request, config: ModelConfig) -> int:
    positions: list[str] = []
    for part in request.prefix:
        if isinstance(part, Latent):
            positions += between_markers(config.modalities[part.modality], tuple(part.values.shape[1:]))
        else:
            positions += ["token"] * len(part)
    last = request.prefix[-1]
    begun = [each for each in config.modalities if not isinstance(last, Latent) and int(last[-1]) == each.begin_token_id]
    kinds = [between_markers(each, axes) for each, axes in zip(config.modalities, request.shapes, strict=True) if axes]
    if not request.max_new_tokens:
        if begun:
            positions += between_markers(begun[0], request.shapes[config.modalities.index(begun[0])])[1:-1]
        return len(positions)
    generated = max(kinds, key=len, default=[]) * request.max_latents + ["token"] * request.max_new_tokens
    return len(positions) + len(generated) - len(begun)


@pytest.mark.parametrize("max_new_tokens", [0, 1, 9])
def test_a_request_needs_the_positions_of_its_longest_sequence(max_new_tokens: int, rng: random.Random) -> None:
    num_asked = 0
    for _ in range(200):
        shapes = (rng.choice([(), (4, 6), (2, 3)]), rng.choice([(), (8,), (20,)]))
        parts = [
            torch.zeros(rng.randrange(1, 5), dtype=torch.long),
            Latent(0, torch.zeros(2, 4, 9)),
            Latent(1, torch.zeros(1, 12)),
        ]
        prefix = tuple(rng.choices(parts, k=rng.randrange(1, 5)))
        askable = [each.begin_token_id for each, axes in zip(CONFIG.modalities, shapes, strict=True) if axes]
        if askable and rng.random() < 0.5:
            prefix, num_asked = (*prefix, torch.tensor([7, rng.choice(askable)])), num_asked + 1
        request = Request(prefix, 0, max_new_tokens, rng.randrange(1, 4), shapes)
        request.check(CONFIG)
        assert request.columns_needed(CONFIG) == longest(request, CONFIG), request
    assert num_asked > 50
