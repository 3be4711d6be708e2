"""What the model is evaluated on: documents of a split as they were encoded, with what they looked like and said.

Ids and latents come from the shards, so that evaluation sees what training would have; texts, pictures and labels come
from the documents. Documents that a gate quarantined are left out.

Legend: m images of one document, n ids of it, C latent channels, Y/X latent height/width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from components.data.demonstration.scenes import COLOURS, PLACES, SceneObject
from components.data.documents import Document, document_name, read_documents
from components.data.shards import Shard, open_shard, shard_keys, shard_paths
from components.evaluation.interleaving import Interleaving, interleaved


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


class _Place(NamedTuple):
    """Where a document, or a piece of one, is stored: the shard's files are mapped, and what is not asked for is not read."""

    shard: Shard
    number: int
    """Which of its pieces it is."""

    def stored(self) -> Stored:
        """A copy of it."""
        shard, own = self.shard, slice(*np.searchsorted(self.shard.image_document, [self.number, self.number + 1]))
        ids = shard.ids[shard.document_at[self.number] : shard.document_at[self.number + 1]]
        return Stored(ids.astype(np.int64), shard.latents[own].astype(np.float32))


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


def read_held_out(
    documents: Path, latents: Path, split: str, *, quarantined: frozenset[str], max_images: int, max_text_bytes: int
) -> HeldOut:
    """Documents of a split up to max_images with images and max_text_bytes of text without: the first ones of each corpus.

    Corpora have their shares of both, and of every beginning of the two lists. Documents of one picture with a caption each
    count as one image, and all of them are read.
    quarantined: names of documents and of pieces that a gate quarantined. Check the folders' manifests before.
    """
    places = _places(latents, split)

    def usable() -> Iterator[tuple[str, Document, list[_Place]]]:
        for document in read_documents(documents, split):
            name = document_name(document.source, document.key)
            found = places.get(name, {})
            if found and not quarantined & {name, *found}:
                yield name, document, list(found.values())

    # Read twice, so that no more than what is evaluated is ever held.
    chosen = _chosen(usable(), max_images, max_text_bytes)
    texts, images = list[tuple[str, TextDocument]](), list[tuple[str, ImageDocument]]()
    for name, document, found in usable():
        if document.images and _key(document.images) in chosen:
            images.append((document.source, _image_document(name, document, found[0].stored())))
        elif not document.images and name in chosen:
            pieces = tuple(place.stored() for place in found)
            texts.append((document.source, TextDocument(name, "".join(document.texts), pieces)))
    return HeldOut(interleaved(texts), interleaved(images))


def _chosen(usable: Iterable[tuple[str, Document, list[_Place]]], max_images: int, max_text_bytes: int) -> set[str | bytes]:
    """The names of texts, and the keys of pictures, that are evaluated."""
    texts, images = Interleaving[str](max_text_bytes), Interleaving[bytes](max_images)
    known: set[bytes] = set()
    for name, document, _ in usable:
        if not document.images:
            texts.add(document.source, len("".join(document.texts).encode()), name)
        elif (key := _key(document.images)) not in known:
            known.add(key)
            images.add(document.source, len(document.images), key)
    return {*texts.first(), *images.first()}


def _key(pictures: Sequence[bytes]) -> bytes:
    """The same for the same pictures; a few bytes, for there is one of each picture of the split."""
    found = hashlib.sha256()
    for picture in pictures:
        found.update(hashlib.sha256(picture).digest())
    return found.digest()[:16]


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


def _places(latents: Path, split: str) -> dict[str, dict[str, _Place]]:
    """name of a document -> name of each of its pieces -> where that is stored, of one split."""
    whole: dict[str, dict[str, _Place]] = {}
    cut: dict[str, dict[str, _Place]] = {}
    for path in shard_paths(latents, split):
        shard = open_shard(path)
        for index, piece in enumerate(shard_keys(shard)):
            whole[piece] = {piece: _Place(shard, index)}
            # A long text's pieces are called name#0, name#1, ...
            cut.setdefault(piece.rpartition("#")[0], {})[piece] = whole[piece][piece]
    return cut | whole
