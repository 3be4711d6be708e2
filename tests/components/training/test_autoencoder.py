"""Does the autoencoder learn, and are its latents normal and its figure right?"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from components.data.documents import Document, ImageSegment, TextSegment, write_documents
from components.data.images import encode_png
from components.runtime.failure import BadInput
from components.training import autoencoder as subject
from components.training.config import AutoencoderConfig
from model.autoencoder import to_pixels

CONFIG = AutoencoderConfig(
    seed=1,
    pretrained="",
    block_channels=(8, 16),
    layers_per_block=1,
    latent_channels=4,
    norm_groups=4,
    kl_weight=1e-6,
    batch_size=8,
    max_steps=60,
    learning_rate=0.003,
    min_psnr_db=1.0,
)


def squares(number: int, seed: int) -> torch.Tensor:
    """One bright square on black in each picture, uint8 [number, 16, 16, 3]."""
    print(f"seed {seed}")
    generator = np.random.default_rng(seed)
    images = np.zeros((number, 16, 16, 3), np.uint8)
    for image in images:
        top, left = generator.integers(0, 9, 2)
        image[top : top + 8, left : left + 8] = generator.integers(100, 256, 3)
    return torch.from_numpy(images)


def test_it_learns_and_its_latents_are_normal() -> None:
    images, held_out = squares(64, seed=1), squares(32, seed=2)
    trained = subject.train_autoencoder(CONFIG, images, torch.device("cpu"))
    untrained = subject.train_autoencoder(dataclasses.replace(CONFIG, max_steps=4), images, torch.device("cpu"))
    figures = [subject.psnr_db(subject.reconstruct(network, held_out), held_out) for network in (trained, untrained)]
    black = subject.psnr_db(torch.zeros_like(held_out), held_out)
    assert figures[0] > max(figures[1], black) + 3, (figures, black)
    latents = trained.encode(to_pixels(images)).double()
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(4).double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(4).double(), atol=1e-3, rtol=0)


def test_equal_seeds_give_equal_weights() -> None:
    short = dataclasses.replace(CONFIG, max_steps=3)
    one, other = (subject.train_autoencoder(short, squares(16, seed=3), torch.device("cpu")) for _ in range(2))
    for left, right in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize("max_steps", [1, 2, 3, 9, 10, 11])
def test_a_run_may_be_short(max_steps: int) -> None:
    config = dataclasses.replace(CONFIG, max_steps=max_steps, batch_size=1)
    trained = subject.train_autoencoder(config, squares(2, seed=5), torch.device("cpu"))
    assert all(torch.isfinite(weight).all() for weight in trained.state_dict().values())


def test_psnr_is_that_of_the_definition() -> None:
    images = torch.full((2, 4, 4, 3), 100, dtype=torch.uint8)
    assert subject.psnr_db(images + 10, images) == pytest.approx(20 * math.log10(255 / 10))
    assert subject.psnr_db(images, images) > 100


def test_a_side_that_cannot_be_halved_is_refused() -> None:
    images = torch.zeros(4, 15, 15, 3, dtype=torch.uint8)
    with pytest.raises(BadInput, match="15 px"):
        subject.train_autoencoder(CONFIG, images, torch.device("cpu"))


def test_images_are_read_in_order_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = squares(5, seed=4).numpy()
    documents = [
        Document(key=str(index), source="made", segments=(TextSegment("a"), ImageSegment(encode_png(picture))), split="train")
        for index, picture in enumerate(pictures)
    ]
    write_documents(tmp_path, "train", documents, documents_per_file=2)
    assert np.array_equal(subject.read_images(tmp_path, "train").numpy(), pictures)
    monkeypatch.setattr(subject, "MAX_BYTES_IN_MEMORY", 2 * pictures[0].nbytes)
    assert len(subject.read_images(tmp_path, "train")) == 3
    with pytest.raises(BadInput, match="no image"):
        subject.read_images(tmp_path, "test")
