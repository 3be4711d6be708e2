"""One tiny model, its folders and its bundle, made once for all tests of the export."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from core.images import Preparation
from core.manifest import write_manifest
from core.tokenizer import train_tokenizer
from export.builder.make_bundle import Evaluated, Sources, build_bundle
from export.bundle import Bundle, open_bundle
from export.config import ExportConfig
from model.config import ModelConfig, image_modality, model_config
from model.generation.requests import SamplingOptions
from model.latents.autoencoder import Autoencoder
from model.transfusion import Transfusion

IMAGE_SIDE_PX = 16
PREPARATION = Preparation(side_px=IMAGE_SIDE_PX, background="black", animated="first_frame")
CAPTIONS = ["a red three top left", "a blue seven bottom right and a green one top left", "def return(self): pass"] * 4
CONFIG = ExportConfig(opset=24, max_transformer_error=1e-4, max_autoencoder_error=1e-3, tensorrt="auto")
# No value is the default of anything.
EVALUATED = Evaluated(
    {"text_to_image/objects_right": 0.97},
    SamplingOptions(num_steps=4, guidance_scale=3.5, solver="heun"),
    {"text_to_image/objects_right": {"low": 0.95, "high": 0.99, "num_items": 8}},
    {"documents": "d" * 64, "latents": "e" * 64},
)


class Made(NamedTuple):
    """sources: the trained folders. parity: the report. seconds: that the whole build took."""

    sources: Sources
    bundle: Bundle
    model: Transfusion
    autoencoder: Autoencoder
    parity: dict[str, Any]
    seconds: float


def png(width: int, height: int, mode: str = "RGB", seed: int = 0) -> bytes:
    """Noise as a PNG file's bytes."""
    channels = {"RGB": 3, "RGBA": 4}.get(mode)
    shape = (height, width, channels) if channels else (height, width)
    values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    buffer = io.BytesIO()
    image = Image.fromarray(values) if mode in ("RGB", "RGBA", "L") else Image.fromarray(values.astype(np.uint16) * 257)
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def lively_model(config: ModelConfig) -> Transfusion:
    """Random weights four times the initial size, so that errors and guidance show."""
    model = Transfusion(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    return model


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    torch.manual_seed(17)
    root = tmp_path_factory.mktemp("export")
    sources = Sources(root / "model", root / "autoencoder", root / "tokenizer")
    tokenizer = train_tokenizer(CAPTIONS, 300)
    sources.tokenizer.mkdir()
    tokenizer.save(sources.tokenizer)
    markers = {"begin_token_id": tokenizer.special_ids["boi"], "end_token_id": tokenizer.special_ids["eoi"]}
    config = model_config(
        "tiny",
        vocab_size=300,
        modalities=(image_modality(channels=4, patch_side=2, patch_layers="linear", unet_channels=(), **markers),),
        prediction_type="flow",
        max_position_embeddings=96,
        special_ids=tokenizer.special_ids,
    )
    model = lively_model(config)
    model.save_pretrained(sources.model)
    autoencoder = Autoencoder.create(
        block_channels=(8, 8), layers_per_block=1, latent_channels=4, norm_groups=4, sample_side_px=IMAGE_SIDE_PX
    ).eval()
    # Not mean 0 and deviation 1, or a graph without the normalisation would pass.
    autoencoder.set_normalisation(torch.tensor([0.3, -0.2, 0.1, 0.5]), torch.tensor([0.5, 0.7, 1.5, 0.9]))
    autoencoder.save_pretrained(sources.autoencoder)
    folder = root / "bundle"
    folder.mkdir()
    started_s = time.monotonic()
    parity = build_bundle(sources, folder, CONFIG, preparation=PREPARATION, evaluated=EVALUATED)
    seconds = time.monotonic() - started_s
    write_manifest(folder, kind="bundle")
    return Made(sources, open_bundle(folder), model, autoencoder, parity, seconds)


@pytest.fixture
def copied(made: Made, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may spoil."""
    import shutil

    return Path(shutil.copytree(made.bundle.folder, tmp_path / "bundle"))
