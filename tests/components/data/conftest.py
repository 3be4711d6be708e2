"""Fixtures of the tests of encoding, loading and the gates: a few documents of every shape, encoded by real parts."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from components.data.documents import Document, ImageSegment, Segment, TextSegment, write_documents
from components.data.encode.assembly import Assembly, assemble
from components.data.encode.encoding import PartEncoder, Sources, plan
from components.data.encode.latents import EncodeSettings
from core.manifest import write_manifest
from core.png import encode_png
from core.tokenizer import train_tokenizer
from model.latents.autoencoder import Autoencoder

SETTINGS = EncodeSettings(batch_size=3, row_length=80, patch_side=2, image_side_px=16)
# Every document once; two parts a shard or so.
ASSEMBLY = Assembly(weights={}, text_to_image_ratio=0.0, shard_bytes=60_000, ancestors={"autoencoder": "a" * 64})
WORDS = ["a", "red", "three", "top", "left", "and", "blue", "seven", "bottom", "right"]


class Encoded(NamedTuple):
    """documents: those of the training split in written order. latents: the folder the encode stage would write."""

    documents: list[Document]
    sources: Sources
    settings: EncodeSettings
    latents: Path


def text(generator: np.random.Generator, num_words: int) -> TextSegment:
    return TextSegment(" ".join(generator.choice(WORDS, num_words)))


def image(generator: np.random.Generator) -> ImageSegment:
    return ImageSegment(encode_png(generator.integers(0, 256, (16, 16, 3), np.uint8)))


def make_documents(split: str, number: int, seed: int) -> list[Document]:
    """Caption first, image first, text alone (some longer than a record), interleaved, and one with too many images."""
    print(f"seed {seed}")
    generator = np.random.default_rng(seed)
    documents = []
    for index in range(number):
        segments: tuple[Segment, ...] = (
            (text(generator, 5), image(generator)),
            (image(generator), text(generator, 4)),
            (text(generator, int(generator.integers(2, 200))),),
            (text(generator, 2), image(generator), text(generator, 3), image(generator), text(generator, 1)),
            (image(generator), image(generator), text(generator, 2)),
        )[index % 5]
        documents.append(Document(key=f"{split}-{index}", source="made", segments=segments, split=split))
    crowd = tuple(image(generator) for _ in range(9))
    return [*documents, Document(key=f"{split}-crowd", source="made", segments=crowd, split=split)]


def write_sources(folder: Path) -> tuple[Sources, list[Document]]:
    """Documents in several parts, a tokenizer and an autoencoder, each as its stage would write it."""
    train = make_documents("train", 40, seed=3)
    parts = folder / "documents"
    write_documents(parts, "train", train, documents_per_file=9)
    for split, seed in (("validation", 4), ("test", 5)):
        write_documents(parts, split, make_documents(split, 5, seed), documents_per_file=9)
    write_manifest(parts, kind="documents", preparation={"side_px": 16, "background": "black", "animated": "first_frame"})
    train_tokenizer((text for document in train for text in document.texts), 270).save(folder / "tokenizer")
    torch.manual_seed(4)
    made = Autoencoder.create(block_channels=(8, 8), layers_per_block=1, latent_channels=4, norm_groups=4, sample_side_px=16)
    made.save_pretrained(folder / "autoencoder")
    write_manifest(folder / "autoencoder", kind="autoencoder")
    return Sources(parts, folder / "tokenizer", folder / "autoencoder", frozenset()), train


@pytest.fixture(scope="session")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Encoded:
    """The sources encoded in this process, part after part."""
    folder = tmp_path_factory.mktemp("encoded")
    sources, documents = write_sources(folder)
    encoder = PartEncoder(sources, SETTINGS)
    for item in plan(sources, folder / "work"):
        encoder(item)
    assemble(sources, SETTINGS, ASSEMBLY, folder / "work", folder / "latents")
    return Encoded(documents, sources, SETTINGS, folder / "latents")
