"""Fixtures of the tests of training: a few packed rows, a tokenizer, an autoencoder and a configuration, all tiny."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from components.data.documents import Document, ImageSegment, Segment, TextSegment
from components.data.encode.packing import pack, write_packing
from components.data.loader import PackedRows
from components.data.shards import Shard, pack_keys, shard_path, write_shard
from components.data.token_stream import token_stream
from components.runtime.tracking import RunIdentity
from components.training.transformer.config import (
    HeldOutImagesConfig,
    LearningRateScales,
    ModelChoice,
    SamplingConfig,
    ScheduleConfig,
    SelectionConfig,
    TrainConfig,
)
from components.training.transformer.run import TransformerRun
from components.training.transformer.state import configuration
from core.manifest import write_manifest
from core.tokenizer import TextTokenizer, train_tokenizer
from model.latents.autoencoder import Autoencoder
from model.loss_options import PLAIN
from model.transfusion import Transfusion

ROW_LENGTH, LATENT_SHAPE, PATCH_SIDE = 64, (4, 4, 4), 2
CAPTIONS = ("a red three top left", "a blue seven bottom right and a red one", "there is a green nine", "red")

PATCHES_AN_IMAGE = LATENT_SHAPE[1] * LATENT_SHAPE[2] // PATCH_SIDE**2


class Corpus(NamedTuple):
    """Folders as the stages before training leave them."""

    latents: Path
    tokenizer: Path
    autoencoder: Path

    def rows(self, split: str) -> PackedRows:
        return PackedRows(self.latents, split, None)

    def run(self, config: TrainConfig, folder: Path, *, tracked_in: Path, quarantine: Path | None = None) -> TransformerRun:
        """A run of no store that is there; what it records waits in an outbox beside it."""
        return TransformerRun(
            config=config,
            identity=RunIdentity(f"sqlite:///{tracked_in}/mlflow.db", "0" * 32, str(tracked_in / "outbox")),
            latents=self.latents,
            quarantine=quarantine,
            tokenizer=self.tokenizer,
            autoencoder=self.autoencoder,
            folder=folder,
        )


CONFIG = TrainConfig(
    seed=17,
    pretrained="",
    model=ModelChoice(
        preset="tiny",
        patch_side=PATCH_SIDE,
        patch_layers="linear",
        unet_channels=(),
        prediction_type="flow",
        zero_terminal_snr=False,
        experts="shared",
        qk_norm=False,
    ),
    batch_rows=4,
    micro_batch_rows=0,
    max_steps=12,
    warmup_steps=3,
    learning_rate=0.01,
    min_learning_rate=0.001,
    schedule=ScheduleConfig(kind="cosine", decay_ratio=0.25, decay_type="linear"),
    learning_rate_scales=LearningRateScales(text=1.0, images=1.0, shared=1.0),
    weight_decay=0.1,
    optimiser="adamw",
    muon_momentum=0.95,
    adam_beta1=0.9,
    adam_beta2=0.95,
    adam_eps=1e-8,
    clip_norm=1.0,
    image_loss_weight=3.0,
    loss=PLAIN,
    image_first_time_limit=0.5,
    caption_dropout=0.2,
    resample_latents=False,
    ema_decay=0.9,
    precision="float32",
    compile="off",
    step_timeout_s=600.0,
    parallel="auto",
    activation_checkpointing="none",
    hidden_states="float32",
    flex_attention="triton",
    checkpoint_every_steps=4,
    sample_every_steps=6,
    log_every_steps=2,
    validate_every_steps=4,
    held_out_images=HeldOutImagesConfig(num_documents=5, noise_levels=(0.3, 0.8)),
    selection=SelectionConfig(weights="last", figure="loss", patience=0, min_improvement=0.0),
    sampling=SamplingConfig(prompts=("a red three top left", "a blue seven"), guidance_scale=2.0, num_steps=2),
)


def changed(**changes: object) -> TrainConfig:
    return dataclasses.replace(CONFIG, **changes)  # pyright: ignore[reportArgumentType]


# Its held-out image loss falls until step 14, and no more in the three validations after it.
STOPPING: TrainConfig = changed(
    max_steps=24,
    learning_rate=0.03,
    min_learning_rate=0.03,
    ema_decay=0.5,
    clip_norm=100.0,
    log_every_steps=1,
    validate_every_steps=2,
    sample_every_steps=2,
    selection=SelectionConfig(weights="best", figure="image", patience=3, min_improvement=0.0),
)
BEST, LAST = 14, 20


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("corpus")
    tokenizer = train_tokenizer(CAPTIONS, 270)
    tokenizer.save(folder / "tokenizer")
    torch.manual_seed(5)
    autoencoder = Autoencoder.create(
        block_channels=(8, 8), layers_per_block=1, latent_channels=4, norm_groups=4, sample_side_px=8
    )
    autoencoder.save_pretrained(folder / "autoencoder")
    write_manifest(folder / "autoencoder", kind="autoencoder")
    latents = folder / "latents"
    for split, number, seed in (("train", 60, 1), ("validation", 11, 2), ("test", 11, 3)):
        write_split(latents, split, tokenizer, number, seed)
    write_manifest(
        latents,
        kind="latents",
        latent_shape=list(LATENT_SHAPE),
        patch_side=PATCH_SIDE,
        row_length=ROW_LENGTH,
        vocab_size=tokenizer.vocab_size,
        special_ids=tokenizer.special_ids,
    )
    return Corpus(latents, folder / "tokenizer", folder / "autoencoder")


def write_start(corpus: Corpus, folder: Path) -> Path:
    """A bundle as far as a training begins with it: other weights than the seed's, the corpus's tokenizer and autoencoder."""
    torch.manual_seed(99)
    Transfusion(configuration(CONFIG, corpus.rows("train"))).save_pretrained(folder)
    shutil.copytree(corpus.autoencoder, folder / "autoencoder", ignore=shutil.ignore_patterns("manifest.json"))
    shutil.copyfile(corpus.tokenizer / "tokenizer.json", folder / "tokenizer.json")
    write_manifest(folder, kind="bundle")
    return folder


def write_split(latents: Path, split: str, tokenizer: TextTokenizer, number: int, seed: int) -> None:
    """Captions with an image after them, images with a caption after them, and text alone."""
    print(f"seed {seed}")
    generator = np.random.default_rng(seed)
    ids: list[int] = []
    document_at, image_document, image_at, image_first, lengths = [0], [], [], [], []
    for index in range(number):
        text, image = TextSegment(str(generator.choice(CAPTIONS))), ImageSegment(b"")
        segments: tuple[Segment, ...] = ((text, image), (image, text), (text,))[index % 3]
        stream = token_stream(tokenizer, Document(key=str(index), source="made", segments=segments, split=split))
        image_document += [index] * len(stream.image_positions)
        image_at += [len(ids) + position for position in stream.image_positions]
        image_first += [index % 3 == 1] * len(stream.image_positions)
        ids += stream.ids
        document_at.append(len(ids))
        lengths.append(len(stream.ids) + len(stream.image_positions) * PATCHES_AN_IMAGE)
    values = generator.standard_normal((len(image_at), *LATENT_SHAPE)).astype(np.float16)
    keys, key_at = pack_keys(f"{split}-{index}" for index in range(number))
    shard = Shard(
        ids=np.array(ids, np.int32),
        document_at=np.array(document_at, np.int64),
        latents=values,
        latent_std=np.full_like(values, 0.1),
        image_document=np.array(image_document, np.int32),
        image_at=np.array(image_at, np.int64),
        image_first=np.array(image_first, np.bool_),
        keys=keys,
        key_at=key_at,
    )
    (latents / split).mkdir(parents=True)
    write_shard(shard_path(latents, split, 0), shard)
    write_packing(latents / split / "packing.safetensors", pack(np.array(lengths, np.int64), ROW_LENGTH))
