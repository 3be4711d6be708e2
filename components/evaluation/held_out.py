"""What the model is evaluated on: documents of a split as they were encoded, with what they looked like and said.

Ids and latents come from the shards, so that evaluation sees what training would have; texts, pictures and labels come
from the documents. Documents that a gate quarantined are left out.

Legend: m images of one document, n ids of it, C latent channels, Y/X latent height/width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from components.data.demonstration.scenes import COLOURS, PLACES, SceneObject
from components.data.documents import Document, document_name, read_documents
from components.data.shards import Shard, open_shard, shard_keys, shard_paths
from components.evaluation.picture_sample import PictureSample
from core.random import words_of

# The 5-gram's counts of more prose than this would not fit small machines.
MAX_TRAINING_BYTES = 16_000_000


class Stored(NamedTuple):
    """A document, or a piece of a long text, as encoded."""

    ids: np.ndarray
    """int64 [n], its stream."""
    latents: np.ndarray
    """float32 [m, C, Y, X]."""


class TextDocument(NamedTuple):
    """A document without images."""

    name: str
    """source/key, unique in all corpora."""
    text: str
    pieces: tuple[Stored, ...]
    """Its streams; a text longer than a row is cut into several."""


class ImageDocument(NamedTuple):
    """A document with images."""

    name: str
    """source/key, unique in all corpora."""
    stored: Stored
    caption: str | None
    """As `caption_of` says."""
    pictures: tuple[bytes, ...]
    """Its PNG files."""
    objects: frozenset[SceneObject] | None
    scans: tuple[int, ...]
    """What the picture shows and the scans it was made of, where it is one of the demonstration's scenes; else None and
    nothing."""


def are_alike(one: ImageDocument, other: ImageDocument) -> bool:
    """Whether neither caption is a wrong one for the other's image: the same caption, or the same image with another."""
    return one.caption == other.caption or one.pictures == other.pictures


class HeldOut(NamedTuple):
    texts: list[TextDocument]
    images: list[ImageDocument]

    @property
    def scenes(self) -> list[ImageDocument]:
        """The documents whose objects are known."""
        return [document for document in self.images if document.objects]


class TrainingFacts(NamedTuple):
    """What evaluation needs of the training documents."""

    texts: list[str]
    """Their prose."""
    scans: list[int]
    """What their scenes and those of validation were made of, sorted."""
    captions: frozenset[int]
    """Hashes of their captions (`core.random.words_of`): the texts themselves would not fit where there are millions."""
    pictures: tuple[bytes, ...] = ()
    """PNG files of documents of one picture each, drawn from all of them."""
    latents: tuple[np.ndarray, ...] = ()
    """Of all training pictures, float16 [m, C, Y, X] a shard; views of the files where nothing was quarantined."""

    def knows(self, caption: str) -> bool:
        """Whether a training document has this very caption."""
        return words_of([caption]).item() in self.captions


def read_held_out(
    documents: Path, latents: Path, split: str, *, quarantined: frozenset[str], max_images: int, max_text_bytes: int
) -> HeldOut:
    """The first documents of a split up to max_images with images and max_text_bytes of text without.

    Documents of one picture with a caption each count as one image, and all of them are read.
    quarantined: names of documents and of pieces that a gate quarantined. Check the folders' manifests before.
    """
    pieces = _pieces(latents, split)
    texts, images = [], []
    pictures: set[tuple[bytes, ...]] = set()
    num_bytes = num_images = 0
    for document in read_documents(documents, split):
        name = document_name(document.source, document.key)
        stored = pieces.get(name, {})
        if not stored or quarantined & {name, *stored}:
            continue
        is_known = document.images in pictures
        if document.images and (is_known or num_images < max_images):
            images.append(_image_document(name, document, next(iter(stored.values()))))
            num_images += 0 if is_known else len(document.images)
            pictures.add(document.images)
        elif not document.images and num_bytes < max_text_bytes:
            text = "".join(document.texts)
            texts.append(TextDocument(name, text, tuple(stored.values())))
            num_bytes += len(text.encode())
    return HeldOut(texts, images)


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

    num_pictures: drawn by `seed`, and as many as there are where there are fewer.
    """
    texts: list[str] = []
    scans: set[int] = set()
    captions: set[int] = set()
    pictures, num_bytes = PictureSample(num_pictures, seed), 0
    for split in ("train", "validation"):
        for document in read_documents(documents, split):
            name = document_name(document.source, document.key)
            if name in quarantined:
                continue
            if document.images:
                if split == "train" and len(document.images) == 1:
                    pictures.add(name, document.images[0])
                scans.update(document.meta["scans"] if scene_objects(document.meta) else ())
                if split == "train" and (caption := caption_of(document)):
                    captions.add(words_of([caption]).item())
            elif split == "train" and num_bytes < max_text_bytes:
                texts.append("".join(document.texts))
                num_bytes += len(texts[-1].encode())
    known = tuple(training_latents(latents, quarantined))
    return TrainingFacts(texts, sorted(scans), frozenset(captions), pictures.drawn(), known)


def training_latents(latents: Path, quarantined: frozenset[str]) -> Iterator[np.ndarray]:
    """Of each training shard its pictures as they are, without flips and crops: float16 [m, C, Y, X]."""
    for path in shard_paths(latents, "train"):
        shard = open_shard(path)
        bad = [number for number, name in enumerate(shard_keys(shard)) if name in quarantined] if quarantined else []
        if len(shard.latents):
            yield shard.latents[~np.isin(shard.image_document, bad)] if bad else shard.latents


def caption_of(document: Document) -> str | None:
    """The text of a document that holds exactly one image and some text, else None."""
    text = "".join(document.texts)
    return text if len(document.images) == 1 and text else None


def scene_objects(meta: Mapping[str, Any]) -> frozenset[SceneObject] | None:
    """The objects of a demonstration scene from its document's meta; None for any other document."""
    if not isinstance(meta.get("objects"), list) or not isinstance(meta.get("scans"), list):
        return None
    try:
        objects = frozenset(SceneObject(entry["digit"], entry["colour"], entry["place"]) for entry in meta["objects"])
    except (KeyError, TypeError):
        return None
    known = all(thing.digit in range(10) and thing.colour in COLOURS and thing.place in PLACES for thing in objects)
    return objects if objects and known else None


def _image_document(name: str, document: Document, stored: Stored) -> ImageDocument:
    objects = scene_objects(document.meta)
    scans = tuple(document.meta["scans"]) if objects else ()
    return ImageDocument(name, stored, caption_of(document), document.images, objects, scans)


def _pieces(latents: Path, split: str) -> dict[str, dict[str, Stored]]:
    """name of a document -> name of each of its pieces -> what was stored, of one split."""
    whole: dict[str, dict[str, Stored]] = {}
    cut: dict[str, dict[str, Stored]] = {}
    for path in shard_paths(latents, split):
        for piece, stored in _stored(open_shard(path)):
            whole[piece] = {piece: stored}
            # A long text's pieces are called name#0, name#1, ...
            cut.setdefault(piece.rpartition("#")[0], {})[piece] = stored
    return cut | whole


def _stored(shard: Shard) -> Iterator[tuple[str, Stored]]:
    image_at = np.searchsorted(shard.image_document, np.arange(len(shard.document_at)))
    for index, name in enumerate(shard_keys(shard)):
        ids = shard.ids[shard.document_at[index] : shard.document_at[index + 1]].astype(np.int64)
        latents = shard.latents[image_at[index] : image_at[index + 1]].astype(np.float32)
        yield name, Stored(ids, latents)
