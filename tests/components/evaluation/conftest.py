"""What the evaluation's tests share: a tokenizer of scene captions, and small random models."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from components.data.demonstration.scenes import ALL_PAIRS, PHRASINGS, describe, random_objects
from core.tokenizer import TextTokenizer, train_tokenizer
from model.config import ModelConfig, image_modality, model_config
from model.transfusion import Transfusion

LATENT_SHAPE = (4, 4, 4)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """These models are too small to gain from threads, and threads wait for one another on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tokenizer() -> TextTokenizer:
    rng = np.random.default_rng(0)
    return train_tokenizer([describe(random_objects(rng, ALL_PAIRS), i % len(PHRASINGS)) for i in range(200)], 320)


@pytest.fixture(scope="session")
def config(tokenizer: TextTokenizer) -> ModelConfig:
    return model_config(
        "tiny",
        vocab_size=tokenizer.vocab_size,
        modalities=(
            image_modality(
                channels=LATENT_SHAPE[0],
                patch_side=2,
                patch_layers="linear",
                unet_channels=(),
                begin_token_id=tokenizer.special_ids["boi"],
                end_token_id=tokenizer.special_ids["eoi"],
            ),
        ),
        prediction_type="flow",
        max_position_embeddings=256,
        special_ids=tokenizer.special_ids,
    )


@pytest.fixture
def model(config: ModelConfig) -> Transfusion:
    """Random weights, large enough that every input matters to every output."""
    torch.manual_seed(5)
    model = Transfusion(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
    return model
