"""A tiny model with weights large enough that every path matters, and packed batches made position by position."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from model.batch import Batch, Latents
from model.config import ModelConfig, image_modality, model_config
from model.transfusion import Transfusion

# Patches of a random document's image -> its grid.
GRIDS = {1: (1, 1), 2: (2, 1), 4: (2, 2), 6: (2, 3)}
SPECIAL_IDS = {"pad": 0, "bos": 1, "eos": 2, "boi": 3, "eoi": 4}


def tiny_config(prediction_type: str = "flow", **changes: Any) -> ModelConfig:
    """changes: fields of ModelConfig other than the tiny model's."""
    images = image_modality(channels=3, patch_side=2, patch_layers="linear", unet_channels=(), begin_token_id=3, end_token_id=4)
    config = model_config(
        "tiny",
        vocab_size=64,
        modalities=(images,),
        prediction_type=prediction_type,  # type: ignore[arg-type]
        max_position_embeddings=160,
        special_ids=SPECIAL_IDS,
    )
    return replace(config, **changes)


def tiny_model(prediction_type: str = "flow", seed: int = 0, **changes: Any) -> Transfusion:
    torch.manual_seed(seed)
    model = Transfusion(tiny_config(prediction_type, **changes))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    return model.eval()


def random_document(rng: random.Random, num_images: int) -> list[int]:
    """Token ids of a document; -k stands for a patch of its image k (1, 2, ...)."""
    words = lambda: [rng.randrange(5, 64) for _ in range(rng.randrange(1, 6))]  # noqa: E731
    stream = [1, *words()]
    for image in range(1, num_images + 1):
        stream += [3, *([-image] * rng.choice([1, 4, 6])), 4, *words()]
    return [*stream, 2]


def pack(rows: list[list[list[int]]], config: ModelConfig, length: int, seed: int = 0) -> Batch:
    """A batch straight from the definition: rows of documents of `random_document`'s form."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    position, first, last = ids.clone(), torch.arange(length).repeat(len(rows), 1), torch.arange(length).repeat(len(rows), 1)
    patch_positions, latent_index, loss_positions, target, after_image, grids = [], [], [], [], [], []
    for row, documents in enumerate(rows):
        start = 0
        for document in documents:
            of_image: dict[int, int] = {}
            for offset, token in enumerate(document):
                at = start + offset
                position[row, at], first[row, at], ids[row, at] = offset, start, max(token, 0)
                if token < 0:
                    if token not in of_image:
                        of_image[token] = len(grids)
                        grids.append(GRIDS[document.count(token)])
                    last[row, at] = start + max(i for i, other in enumerate(document) if other == token)
                    patch_positions.append(row * length + at)
                    latent_index.append(of_image[token])
                elif token != 3 and offset + 1 < len(document) and document[offset + 1] >= 0:
                    loss_positions.append(row * length + at)
                    target.append(document[offset + 1])
                    after_image.append(bool(of_image) and not (token == 4 and document[offset + 1] in (2, 3)))
            start += len(document)
        assert start <= length
    images = () if not config.modalities else _images(config, patch_positions, latent_index, grids, generator)
    return Batch(
        input_ids=ids,
        position_ids=position,
        kv_start=first.int(),
        kv_end=last.int(),
        latents=images,
        loss_positions=torch.tensor(loss_positions, dtype=torch.long),
        labels=torch.tensor(target, dtype=torch.long),
        after_image=torch.tensor(after_image, dtype=torch.bool),
    )


def _images(
    config: ModelConfig,
    patch_positions: list[int],
    latent_index: list[int],
    grids: list[tuple[int, int]],
    generator: torch.Generator,
) -> tuple[Latents]:
    images = Latents(
        patches=torch.randn(len(patch_positions), config.image.patch_dim, generator=generator),
        patch_positions=torch.tensor(patch_positions, dtype=torch.long),
        latent_index=torch.tensor(latent_index, dtype=torch.long),
        sample_index=torch.arange(len(grids)),
        time_limit=torch.ones(len(grids)),
        grids=tuple(grids),
    )
    return (images,)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)
