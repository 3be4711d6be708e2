"""What evaluation needs of the training documents: their prose, captions, scans and latents, and a sample of their pictures.

Memory for all of it is bounded; latents stay in the shards' mapped files.

Legend: m images, C latent channels, Y/X latent height/width.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from components.data.documents import Document, document_name, read_documents
from components.data.shards import open_shard, shard_keys, shard_paths
from components.evaluation.held_out import caption_of, scene_objects
from components.evaluation.interleaving import Interleaving
from components.evaluation.picture_sample import PictureSample
from core.random import words_of

# The 5-gram's counts of more prose than this would not fit small machines.
MAX_TRAINING_BYTES = 16_000_000
# PNG files: a thousand photographs of 512 px. Of larger ones fewer are taken.
MAX_PICTURE_BYTES = 512 << 20


class TrainingFacts(NamedTuple):
    """What evaluation needs of the training documents."""

    texts: list[str]
    """Their prose, of each corpus its share."""
    scans: list[int]
    """What their scenes and those of validation were made of, sorted."""
    captions: frozenset[int]
    """Hashes of their captions (`core.random.words_of`): the texts themselves would not fit where there are millions."""
    pictures: tuple[bytes, ...] = ()
    """PNG files that differ, sampled from documents of one picture and a caption; without any such, of one picture alone."""
    latents: tuple[np.ndarray, ...] = ()
    """Of all training pictures, float16 [m, C, Y, X] each: views of the shards' files."""

    def knows(self, caption: str) -> bool:
        """Whether a training document has this very caption."""
        return words_of([caption]).item() in self.captions


class _Collected:
    """Takes the documents one by one."""

    def __init__(self, num_pictures: int, seed: int, max_text_bytes: int) -> None:
        self.texts, self.scans, self.captions = Interleaving[str](max_text_bytes), set[int](), set[int]()
        # Held-out pictures that are generated for are of one kind too: a floor of both kinds would be of another population.
        self.captioned, self.alone = (PictureSample(num_pictures, seed, MAX_PICTURE_BYTES) for _ in range(2))

    def add(self, name: str, document: Document) -> None:
        """A training document."""
        if not document.images:
            text = "".join(document.texts)
            self.texts.add(document.source, len(text.encode()), text)
        elif (caption := caption_of(document)) is not None:
            self.captioned.add(name, document.images[0])
            self.captions.add(words_of([caption]).item())
        elif len(document.images) == 1:
            self.alone.add(name, document.images[0])


def read_training_facts(
    documents: Path,
    latents: Path,
    *,
    quarantined: frozenset[str],
    num_pictures: int,
    seed: int,
    max_text_bytes: int = MAX_TRAINING_BYTES,
) -> TrainingFacts:
    """Prose (up to max_text_bytes), captions and pictures of the training split, and the scans of its scenes and validation's.

    num_pictures: sampled by `seed`; fewer where there are fewer, or where so many hold more than MAX_PICTURE_BYTES.
    """
    found = _Collected(num_pictures, seed, max_text_bytes)
    for split in ("train", "validation"):
        for document in read_documents(documents, split):
            name = document_name(document.source, document.key)
            if name in quarantined:
                continue
            found.scans.update(document.meta["scans"] if document.images and scene_objects(document.meta) else ())
            if split == "train":
                found.add(name, document)
    pictures = found.captioned.pictures() or found.alone.pictures()
    known = tuple(training_latents(latents, quarantined))
    return TrainingFacts(found.texts.first(), sorted(found.scans), frozenset(found.captions), pictures, known)


def training_latents(latents: Path, quarantined: frozenset[str]) -> Iterator[np.ndarray]:
    """The training pictures as they are, without flips and crops, in pieces between quarantined documents: [m, C, Y, X]."""
    for path in shard_paths(latents, "train"):
        shard = open_shard(path)
        bad = [number for number, name in enumerate(shard_keys(shard)) if name in quarantined] if quarantined else []
        # A selection by a mask would be a copy of the whole shard.
        left_out = np.flatnonzero(np.isin(shard.image_document, bad))
        for start, end in zip([0, *left_out + 1], [*left_out, len(shard.latents)], strict=True):
            if start < end:
                yield shard.latents[start:end]
