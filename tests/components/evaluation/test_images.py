"""Pictures are generated from their own prompt and seed alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from components.evaluation.images import generate_images, reconstruct
from core.tokenizer import TextTokenizer
from model.generation.eager import TorchEngine
from model.generation.requests import SamplingOptions
from model.latents.autoencoder import Autoencoder
from model.transfusion import Transfusion


@pytest.fixture(scope="module")
def autoencoder() -> Autoencoder:
    torch.manual_seed(2)
    return Autoencoder.create(
        block_channels=(8, 8), layers_per_block=1, latent_channels=4, norm_groups=4, sample_side_px=8
    ).eval()


def test_a_picture_depends_on_its_prompt_and_seed_alone(
    model: Transfusion, tokenizer: TextTokenizer, autoencoder: Autoencoder
) -> None:
    def draw(prompts: list[str], *, seed: int = 4, num_slots: int = 2) -> np.ndarray:
        options = SamplingOptions(num_steps=3, guidance_scale=2.0)
        engine = TorchEngine(model)
        return generate_images(
            engine, autoencoder, tokenizer, prompts, options, image_shape=(4, 4), seed=seed, num_slots=num_slots
        )

    prompts = ["a red three top left", "there is a blue one in the top right", "top left: green six"]
    images = draw(prompts)
    assert images.shape == (3, 8, 8, 3)
    assert images.dtype == np.uint8
    assert np.abs(images.astype(int) - draw(prompts, num_slots=3)).max() <= 1
    assert np.abs(images[:1].astype(int) - draw(prompts[:1])).max() <= 1
    assert np.abs(images.astype(int) - draw(prompts, seed=5)).max() > 1
    assert np.abs(images[0].astype(int) - draw([prompts[1], *prompts[1:]])[0]).max() > 1


def test_reconstruction_is_the_autoencoders(autoencoder: Autoencoder) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    with torch.no_grad():
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
        decoded = autoencoder.decode(autoencoder.encode(pixels)).clamp(-1, 1).permute(0, 2, 3, 1)
    wanted = ((decoded + 1) * 127.5).round().numpy()
    assert np.abs(reconstruct(autoencoder, images, batch_size=2) - wanted).max() <= 1
