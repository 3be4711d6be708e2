"""The autoencoder learns, its latents are normal and its figure right, and a killed training goes on as if never killed."""

from __future__ import annotations

import dataclasses
import math
import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from components.data.documents import Document, ImageSegment, TextSegment, write_documents
from components.runtime.diagnosis import sentence_of
from components.training.autoencoder import images as corpus_images
from components.training.autoencoder import train as subject
from components.training.autoencoder.config import AutoencoderConfig, AutoencoderLossConfig, CodesConfig
from components.training.autoencoder.quality import code_use, psnr_db, reconstruct
from components.training.autoencoder.worker import AutoencoderRun
from components.training.checkpointer import Checkpointer
from core.errors import BadInput
from core.manifest import write_manifest
from core.png import encode_png
from model.latents.autoencoder import Autoencoder, QuantisedAutoencoder, to_pixels

CONFIG = AutoencoderConfig(
    seed=1,
    pretrained="",
    kind="kl",
    preset="tiny",
    loss=AutoencoderLossConfig(
        reconstruction="l2",
        kl_weight=1e-6,
        lpips_weight=1.0,
        lpips_weights="",
        gan_weight=0.0,
        gan_start_step=0,
        gan_adaptive=False,
    ),
    codes=CodesConfig(number=64, width=4, commitment_weight=0.25, codebook_weight=1.0, restart_every_steps=10),
    batch_size=8,
    max_steps=60,
    learning_rate=0.003,
    ema_decay=0.0,
    checkpoint_every_steps=20,
    min_psnr_db=1.0,
)


def squares(number: int, seed: int, side_px: int = 16) -> torch.Tensor:
    """One bright square on black in each picture, uint8 [number, side_px, side_px, 3]."""
    print(f"seed {seed}")
    generator = np.random.default_rng(seed)
    images = np.zeros((number, side_px, side_px, 3), np.uint8)
    for image in images:
        top, left = generator.integers(0, side_px // 2 + 1, 2)
        image[top : top + side_px // 2, left : left + side_px // 2] = generator.integers(100, 256, 3)
    return torch.from_numpy(images)


def write_corpus(folder: Path, images: torch.Tensor, split: str = "train") -> Path:
    """A folder of documents as ingest leaves it, an image a document."""
    documents = [
        Document(key=str(index), source="made", segments=(TextSegment("a"), ImageSegment(encode_png(image))), split=split)
        for index, image in enumerate(images.numpy())
    ]
    write_documents(folder, split, documents, documents_per_file=10)
    write_manifest(folder, kind="documents")
    return folder


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRANSFUSION_NUM_WORKERS", raising=False)


def train(folder: Path, images: torch.Tensor, **changes: object) -> Autoencoder:
    config = dataclasses.replace(CONFIG, **changes)  # pyright: ignore[reportArgumentType]
    documents = write_corpus(folder / "documents", images)
    return subject.train_autoencoder(config, documents, subject.work_folder(config, documents, folder / "work"))


def same_weights(one: Autoencoder, other: Autoencoder) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(left, right) for left, right in pairs)


def test_it_learns_and_its_latents_are_normal(tmp_path: Path) -> None:
    images, held_out = squares(64, seed=1), squares(32, seed=2)
    trained = train(tmp_path / "one", images)
    untrained = train(tmp_path / "other", images, max_steps=4)
    figures = [psnr_db(reconstruct(network, held_out), held_out) for network in (trained, untrained)]
    black = psnr_db(torch.zeros_like(held_out), held_out)
    assert figures[0] > max(figures[1], black) + 3, (figures, black)
    latents = trained.encode(to_pixels(images)).double()
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(4).double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(4).double(), atol=1e-3, rtol=0)
    assert code_use(trained, held_out) == {}


def test_the_quantised_twin_learns_behind_the_same_interface(tmp_path: Path) -> None:
    images, held_out = squares(64, seed=6), squares(32, seed=7)
    trained = train(tmp_path, images, kind="vq", max_steps=100)
    assert isinstance(trained, QuantisedAutoencoder)
    reached = psnr_db(reconstruct(trained, held_out), held_out)
    assert reached > psnr_db(torch.zeros_like(held_out), held_out) + 3, reached
    use = code_use(trained, images)
    codes = trained.encode_codes(to_pixels(images))
    assert use["num_codes"] == 64
    assert use["num_codes_used"] == len(codes.unique())
    assert 4 < use["code_perplexity"] <= use["num_codes_used"]
    latents = trained.encode(to_pixels(images)).double()
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(4).double(), atol=1e-3, rtol=0)


def test_without_restarts_fewer_codes_are_used(tmp_path: Path) -> None:
    images = squares(64, seed=8)
    stay = dataclasses.replace(CONFIG.codes, restart_every_steps=0)
    moved, still = (
        code_use(train(tmp_path / name, images, kind="vq", max_steps=40, codes=codes), images)["num_codes_used"]
        for name, codes in (("moved", CONFIG.codes), ("still", stay))
    )
    assert moved > still


def test_equal_seeds_give_equal_weights(tmp_path: Path) -> None:
    images = squares(16, seed=3)
    one, other, third = (
        train(tmp_path / name, images, max_steps=3, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert same_weights(one, other)
    assert not same_weights(one, third)


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_a_killed_training_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    images = squares(16, seed=9, side_px=32)
    # Everything that has a state: averaged weights, a discriminator, counts of codes.
    loss = dataclasses.replace(CONFIG.loss, gan_weight=0.5, gan_start_step=3)
    settings = {"kind": kind, "loss": loss, "ema_decay": 0.9, "max_steps": 7, "checkpoint_every_steps": 2}
    settings["codes"] = dataclasses.replace(CONFIG.codes, restart_every_steps=3)
    whole = train(tmp_path / "whole", images, **settings)
    save = Checkpointer.save

    def killed(checkpointer: Checkpointer, step: int) -> None:
        if step == 6:
            raise KeyboardInterrupt
        save(checkpointer, step)

    monkeypatch.setattr(Checkpointer, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", images, **settings)
    monkeypatch.setattr(Checkpointer, "save", save)
    (folder,) = (path for path in (tmp_path / "killed/work").iterdir())
    again = train(tmp_path / "killed", images, **settings)
    assert "resumed from step 4" in capfd.readouterr().out
    assert same_weights(whole, again)

    # A finished training is not done again, and a checkpoint that rotted is passed over.
    assert same_weights(train(tmp_path / "killed", images, **settings), again)
    (folder / "finished/manifest.json").unlink()
    file = folder / "run/step-00000007/autoencoder.rank-0.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    capfd.readouterr()
    assert same_weights(train(tmp_path / "killed", images, **settings), again)
    output = capfd.readouterr().out
    assert "step-00000007 is passed over" in output
    assert "resumed from step 6" in output


def test_two_checkpoints_are_kept(tmp_path: Path) -> None:
    train(tmp_path, squares(8, seed=10), max_steps=9, checkpoint_every_steps=2)
    kept = sorted(path.name for path in tmp_path.glob("work/*/run/step-*"))
    assert kept == ["step-00000008", "step-00000009"]


@pytest.mark.parametrize("max_steps", [1, 2, 3, 9, 10, 11])
def test_a_run_may_be_short(tmp_path: Path, max_steps: int) -> None:
    trained = train(tmp_path, squares(2, seed=5), max_steps=max_steps, batch_size=1)
    assert all(torch.isfinite(weight).all() for weight in trained.state_dict().values())


def test_psnr_is_that_of_the_definition() -> None:
    images = torch.full((2, 4, 4, 3), 100, dtype=torch.uint8)
    assert psnr_db(images + 10, images) == pytest.approx(20 * math.log10(255 / 10))
    assert psnr_db(images, images) > 100


def test_images_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="15 px"):
        train(tmp_path / "odd", torch.zeros(4, 15, 15, 3, dtype=torch.uint8))
    with pytest.raises(BadInput, match=r"gan_weight.*24 px"):
        train(tmp_path / "small", squares(4, seed=11), loss=dataclasses.replace(CONFIG.loss, gan_weight=0.5))
    with pytest.raises(BadInput, match=r"lpips_weights.*no .pth"):
        train(tmp_path / "nothing", squares(4, seed=12), loss=dataclasses.replace(CONFIG.loss, lpips_weights="nowhere"))


def test_small_steps_are_not_divided_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        assert subject.num_workers(CONFIG, side_px=32) == 1
        assert subject.num_workers(dataclasses.replace(CONFIG, batch_size=64), side_px=64) == subject.num_training_workers()
    monkeypatch.setenv("TRANSFUSION_NUM_WORKERS", "3")
    assert subject.num_workers(CONFIG, side_px=32) == 3
    assert subject.num_workers(dataclasses.replace(CONFIG, batch_size=2), side_px=32) == 2


def test_images_are_read_in_order_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = squares(5, seed=4)
    documents = [
        Document(key=str(index), source="made", segments=(TextSegment("a"), ImageSegment(encode_png(picture))), split="train")
        for index, picture in enumerate(pictures.numpy())
    ]
    write_documents(tmp_path, "train", documents, documents_per_file=2)
    assert torch.equal(corpus_images.read_images(tmp_path, "train"), pictures)
    monkeypatch.setattr(corpus_images, "MAX_BYTES_OF_IMAGES", 2 * pictures[0].nbytes)
    assert len(corpus_images.read_images(tmp_path, "train")) == 3
    with pytest.raises(BadInput, match="no image"):
        corpus_images.read_images(tmp_path, "test")


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    documents = write_corpus(tmp_path / "documents", squares(40, seed=14))
    work = tmp_path / "work"
    try:
        # Smaller than the images, and then than the weights in a checkpoint.
        for limit in (20_000, 60_000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            with pytest.raises(Exception) as raised:
                subject.train_autoencoder(dataclasses.replace(CONFIG, max_steps=1), documents, work)
            assert "the file grew beyond what this system allows" in (sentence_of(raised.value) or ""), raised.value
            left = [path for path in work.rglob("*") if path.is_file() and path.stat().st_size > 15_000]
            assert left == ([] if limit == 20_000 else [work / "images.npy"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    subject.train_autoencoder(dataclasses.replace(CONFIG, max_steps=1), documents, work)
    assert torch.equal(torch.from_numpy(np.load(work / "images.npy")), squares(40, seed=14))


def test_a_worker_knows_its_files(tmp_path: Path) -> None:
    work = AutoencoderRun(config=CONFIG, folder=tmp_path)
    assert len({work.images, work.store, work.finished, work.lines}) == 4
