"""The data benchmarks' inputs: made documents, a tokenizer and an autoencoder, as the stages before encode leave them.

Nothing is downloaded: captions are drawn words, pictures drawn colours, and the autoencoder has the demonstration's shape and
random weights, which cost what trained ones cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from components.data.documents import SPLITS, Document, ImageSegment, TextSegment, write_documents
from components.data.quarantine import validation_facts
from core.files import write_json, write_text
from core.manifest import write_manifest
from core.png import encode_png
from core.tokenizer import train_tokenizer
from model.latents.autoencoder import Autoencoder
from model.latents.sizes import PRESETS
from pipelines import paths

WORDS = (
    *("a", "the", "red", "green", "blue", "small", "large", "left", "right", "above", "below", "near"),
    *("two", "three", "cat", "dog", "house", "tree", "car", "cloud", "line"),
)


class Corpus(NamedTuple):
    """num_documents: of the training split; the others have a twentieth each. Every fifth is text alone.

    side_px: of every picture. documents_per_file: of one part.
    """

    num_documents: int
    side_px: int
    documents_per_file: int
    seed: int


def write_corpus(folder: Path, corpus: Corpus) -> None:
    """Everything that the encode stage reads, below `folder`, where a repository would have it."""
    import torch

    documents = folder / paths.DOCUMENTS
    for number, split in enumerate(SPLITS):
        amount = corpus.num_documents if split == "train" else corpus.num_documents // 20
        made = make_documents(amount, split, corpus.side_px, corpus.seed + number)
        write_documents(documents, split, made, corpus.documents_per_file)
    preparation = {"side_px": corpus.side_px, "background": "black", "animated": "first_frame"}
    write_manifest(documents, kind="documents", preparation=preparation)
    train_tokenizer([" ".join(WORDS)] * 3, 512).save(folder / paths.TOKENIZER)
    quarantine = folder / paths.QUARANTINE / "documents.jsonl"
    write_text(quarantine, "")
    write_json(folder / paths.REPORTS / "validate/documents.json", validation_facts("documents", quarantine, {}))
    torch.manual_seed(corpus.seed)
    autoencoder = Autoencoder.create(**PRESETS["demo"]._asdict(), sample_side_px=corpus.side_px)
    autoencoder.save_pretrained(folder / paths.AUTOENCODER)
    write_manifest(folder / paths.AUTOENCODER, kind="autoencoder")


def make_documents(number: int, split: str, side_px: int, seed: int) -> Iterator[Document]:
    """Captioned pictures, one in five of them before its caption, and in every fifth document text alone."""
    generator = np.random.default_rng(seed)
    for index in range(number):
        text = TextSegment(" ".join(generator.choice(WORDS, int(generator.integers(4, 40)))))
        picture = ImageSegment(encode_png(make_picture(generator, side_px)))
        segments = (text,) if index % 5 == 4 else (picture, text) if index % 5 == 3 else (text, picture)
        yield Document(key=f"{split}-{index}", source="made", segments=segments, split=split)


def make_picture(generator: np.random.Generator, side_px: int) -> np.ndarray:
    """uint8 [side_px, side_px, 3]: coarse colours with a little noise, about as compressible as a photograph."""
    coarse = generator.integers(0, 224, (-(-side_px // 8), -(-side_px // 8), 3))
    fine = np.kron(coarse, np.ones((8, 8, 1), np.int64))[:side_px, :side_px]
    return (fine + generator.integers(0, 32, (side_px, side_px, 3))).astype(np.uint8)
