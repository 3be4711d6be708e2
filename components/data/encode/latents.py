"""A part of documents as a shard: token streams by the tokenizer, latents by the autoencoder.

Equal documents give equal bytes, whoever encodes them: images pass the autoencoder in batches of one size, which follows from
their number of pixels alone, and the last batch of a part is filled up.

Legend: M images of the part, V views of each (variants.py), C latent channels, Y/X latent height/width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
import torch

from components.data.documents import Document, document_name
from components.data.encode.variants import WHOLE, Views, views_of
from components.data.shards import Shard, pack_keys
from components.data.token_stream import token_stream
from core.errors import BadInput
from core.png import decode_png
from core.tokenizer import TextTokenizer
from model.latents.autoencoder import Autoencoder, to_pixels

# Pixels of one pass of the autoencoder: enough to keep a GPU busy, little beside its memory.
PIXELS_A_PASS, MOST_A_PASS = 2**20, 64


class EncodeSettings(NamedTuple):
    """What decides the bytes of a shard, and how much is held meanwhile."""

    batch_size: int
    """Images decoded and held at a time; changes no byte."""
    row_length: int
    """Positions of a packed row, and of a document at most."""
    patch_side: int
    """Latent pixels along a patch."""
    image_side_px: int
    views: Views = WHOLE
    """What is encoded of each image."""


class EncodedPart(NamedTuple):
    """One part of documents, encoded."""

    shard: Shard
    """The documents kept."""
    rows: list[dict[str, Any]]
    """Of the latents' table, one for each document of the shard."""
    set_aside: list[dict[str, str]]
    """{"key", "reason"} of each document that is too long for a row."""


class Piece(NamedTuple):
    """A document, or a cut of a long text."""

    name: str
    """Unique in the split."""
    document: Document
    ids: list[int]
    image_at: list[int]
    """Index in ids of each image's boi."""


def latent_shape(autoencoder: Autoencoder, settings: EncodeSettings) -> tuple[int, int, int]:
    """(C, Y, X) of every image; BadInput where image, autoencoder and patch do not fit each other."""
    side, left = divmod(settings.image_side_px, autoencoder.pixels_per_latent)
    if left:
        raise BadInput(
            f"images of {settings.image_side_px} px are no multiple of the {autoencoder.pixels_per_latent} px"
            " that the autoencoder makes one latent pixel of; change ingest.image_side_px"
        )
    if side % settings.patch_side:
        raise BadInput(
            f"a latent of {side} x {side} is not cut evenly by train.model.patch_side {settings.patch_side}; change it"
        )
    return autoencoder.latent_channels, side, side


def encode_part(
    documents: Iterable[Document],
    tokenizer: TextTokenizer,
    autoencoder: Autoencoder,
    settings: EncodeSettings,
    *,
    device: torch.device,
    quarantined: frozenset[str] = frozenset(),
    decoders: int = 1,
) -> EncodedPart:
    """Encode documents in order. quarantined: names that a gate quarantined. decoders: threads that decode images.

    A text longer than a row is cut into pieces that fit, each beginning with the last token of the one before, so that
    every token is predicted once; a document with images that is longer is set aside, as it cannot be cut.
    """
    shape = latent_shape(autoencoder, settings)
    patches_per_image = shape[1] * shape[2] // settings.patch_side**2
    pieces, set_aside = [], []
    for document in documents:
        name = document_name(document.source, document.key)
        if name in quarantined:
            continue
        stream = token_stream(tokenizer, document)
        num_positions = len(stream.ids) + len(stream.image_positions) * patches_per_image
        if stream.image_positions and num_positions > settings.row_length:
            reason = f"{num_positions} positions with its images, over the {settings.row_length} of a row"
            set_aside.append({"key": name, "reason": reason})
        else:
            pieces += _cut(name, document, stream.ids, stream.image_positions, settings.row_length)
    images = [data for piece in pieces for data in piece.document.images]
    moments = _encode_images(images, autoencoder, settings, shape, device, decoders)
    shard = _shard(pieces, moments, eos=tokenizer.special_ids["eos"])
    return EncodedPart(shard, list(_rows(pieces, shard, patches_per_image)), set_aside)


def _cut(name: str, document: Document, ids: list[int], image_at: list[int], row_length: int) -> list[Piece]:
    if len(ids) <= row_length:
        return [Piece(name, document, ids, image_at)]
    starts = range(0, len(ids) - 1, row_length - 1)
    return [Piece(f"{name}#{number}", document, ids[start : start + row_length], []) for number, start in enumerate(starts)]


@torch.inference_mode()
def _encode_images(
    images: Sequence[bytes],
    autoencoder: Autoencoder,
    settings: EncodeSettings,
    shape: tuple[int, int, int],
    device: torch.device,
    decoders: int,
) -> np.ndarray:
    """Mean and deviation of the normalised posterior of every view, float16 [2, M, V, C, Y, X]."""
    moments = np.empty((2, len(images), settings.views.number, *shape), np.float16)
    flat = moments.reshape(2, -1, *shape)
    a_pass = max(1, min(MOST_A_PASS, PIXELS_A_PASS // settings.image_side_px**2))
    with ThreadPoolExecutor(decoders) as pool:
        views = chain.from_iterable(_decoded(images, settings, pool))
        for start in range(0, flat.shape[1], a_pass):
            pixels = np.stack(list(islice(views, a_pass)))
            number = len(pixels)
            # A pass that is not full is filled up: a kernel for fewer images may add in another order.
            pixels = np.concatenate([pixels, np.repeat(pixels[-1:], a_pass - number, axis=0)])
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                found = autoencoder.encode_moments(to_pixels(torch.from_numpy(pixels).to(device)))
            for into, part in zip(flat, (found.mean, found.std), strict=True):
                into[start : start + number] = part[:number].to("cpu", torch.float16).numpy()
    return moments


def _decoded(images: Sequence[bytes], settings: EncodeSettings, pool: ThreadPoolExecutor) -> Iterator[list[np.ndarray]]:
    """The views of every image in order; the next batch_size images are decoded while these are used."""

    def decode(data: bytes) -> list[np.ndarray]:
        return views_of(decode_png(data), settings.views)

    ahead = iter(())
    for start in range(0, len(images), settings.batch_size):
        current, ahead = ahead, pool.map(decode, images[start : start + settings.batch_size])
        yield from current
    yield from ahead


def _shard(pieces: Sequence[Piece], moments: np.ndarray, *, eos: int) -> Shard:
    """moments: float16 [2, M, V, C, Y, X]."""
    mean, std = moments
    others = {"variants": mean[:, 1:], "variant_std": std[:, 1:]} if moments.shape[2] > 1 else {}
    lengths = [len(piece.ids) for piece in pieces]
    document_at = np.cumsum([0, *lengths], dtype=np.int64)
    image_at = [start + at for piece, start in zip(pieces, document_at[:-1].tolist(), strict=True) for at in piece.image_at]
    keys, key_at = pack_keys(piece.name for piece in pieces)
    return Shard(
        ids=np.array([id for piece in pieces for id in piece.ids], np.int32),
        document_at=document_at,
        latents=mean[:, 0],
        latent_std=std[:, 0],
        image_document=np.repeat(np.arange(len(pieces), dtype=np.int32), [len(piece.image_at) for piece in pieces]),
        image_at=np.array(image_at, np.int64),
        image_first=np.array([first for piece in pieces for first in _images_first(piece, eos)], np.bool_),
        keys=keys,
        key_at=key_at,
        **others,
    )


def _images_first(piece: Piece, eos: int) -> Iterator[bool]:
    """For each image of the piece: does text follow it and none precede it?"""
    for number, at in enumerate(piece.image_at):
        after = piece.ids[at:]
        text_follows = len(after) - after.count(eos) > 2 * (len(piece.image_at) - number)
        # Only bos and the boi, eoi of earlier images stand before.
        yield text_follows and at == 1 + 2 * number


def _rows(pieces: Sequence[Piece], shard: Shard, patches_per_image: int) -> Iterator[dict[str, Any]]:
    """What the gate sees of each document; of several images the one that strays furthest counts."""
    image = 0
    for piece in pieces:
        latents = shard.latents[image : image + len(piece.image_at)].astype(np.float32)
        image += len(piece.image_at)
        finite = bool(np.isfinite(latents).all())
        measured = finite and len(latents) > 0
        means, stds = latents.mean((1, 2, 3)), latents.std((1, 2, 3))
        yield {
            "key": piece.name,
            "document": document_name(piece.document.source, piece.document.key),
            "source": piece.document.source,
            "split": piece.document.split,
            "num_tokens": len(piece.ids),
            "num_images": len(piece.image_at),
            "num_positions": len(piece.ids) + len(piece.image_at) * patches_per_image,
            "latent_finite": finite,
            "latent_mean": float(means[np.abs(means).argmax()]) if measured else None,
            "latent_std_min": float(stds.min()) if measured else None,
            "latent_std_max": float(stds.max()) if measured else None,
        }
