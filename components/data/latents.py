"""How does a part of documents become a shard? Token streams by the tokenizer, latents by the autoencoder.

Equal documents give equal bytes, whoever encodes them: images pass the autoencoder in fixed batches of their part.

Legend: M images of the part, C latent channels, Y/X latent height/width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from components.data.documents import Document, document_name
from components.data.images import decode_png
from components.data.shards import Shard, pack_keys
from components.data.tokenizer import TextTokenizer, token_stream
from components.runtime.failure import BadInput
from model.autoencoder import Autoencoder, to_pixels


class EncodeSettings(NamedTuple):
    """batch_size: images a pass of the autoencoder. row_length: positions of a packed row, a document's most.

    patch_side: latent pixels along a patch. image_side_px: of every image.
    """

    batch_size: int
    row_length: int
    patch_side: int
    image_side_px: int


class EncodedPart(NamedTuple):
    """shard: the documents kept. rows: one dict a document of it, for the gate. set_aside: {"key", "reason"} each."""

    shard: Shard
    rows: list[dict[str, Any]]
    set_aside: list[dict[str, str]]


class Piece(NamedTuple):
    """A document, or a cut of a long text. name: unique in the split. image_at: index in ids of each image's boi."""

    name: str
    document: Document
    ids: list[int]
    image_at: list[int]


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
    left_out: frozenset[str] = frozenset(),
) -> EncodedPart:
    """Encode documents in order. left_out: names that a gate quarantined.

    A text longer than a row is cut into pieces that fit, each beginning with the last token of the one before, so that
    every token is predicted once; a document with images that is longer is set aside, as it cannot be cut.
    """
    shape = latent_shape(autoencoder, settings)
    patches_per_image = shape[1] * shape[2] // settings.patch_side**2
    pieces, set_aside = [], []
    for document in documents:
        name = document_name(document.source, document.key)
        if name in left_out:
            continue
        stream = token_stream(tokenizer, document)
        num_positions = len(stream.ids) + len(stream.image_positions) * patches_per_image
        if stream.image_positions and num_positions > settings.row_length:
            reason = f"{num_positions} positions with its images, over the {settings.row_length} of a row"
            set_aside.append({"key": name, "reason": reason})
        else:
            pieces += _cut(name, document, stream.ids, stream.image_positions, settings.row_length)
    images = [data for piece in pieces for data in piece.document.images]
    mean, std = _encode_images(images, autoencoder, settings.batch_size, shape, device)
    shard = _shard(pieces, mean, std, eos=tokenizer.special_ids["eos"])
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
    batch_size: int,
    shape: tuple[int, int, int],
    device: torch.device,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of the normalised posterior, each float16 [M, C, Y, X]."""
    mean, std = np.empty((2, len(images), *shape), np.float16)
    for start in range(0, len(images), batch_size):
        pixels = np.stack([decode_png(data) for data in images[start : start + batch_size]])
        moments = autoencoder.encode_moments(to_pixels(torch.from_numpy(pixels).to(device)))
        end = start + len(pixels)
        mean[start:end] = moments.mean.to("cpu", torch.float16).numpy()
        std[start:end] = moments.std.to("cpu", torch.float16).numpy()
    return mean, std


def _shard(pieces: Sequence[Piece], mean: np.ndarray, std: np.ndarray, *, eos: int) -> Shard:
    lengths = [len(piece.ids) for piece in pieces]
    document_at = np.cumsum([0, *lengths], dtype=np.int64)
    image_at = [start + at for piece, start in zip(pieces, document_at[:-1].tolist(), strict=True) for at in piece.image_at]
    keys, key_at = pack_keys(piece.name for piece in pieces)
    return Shard(
        ids=np.array([id for piece in pieces for id in piece.ids], np.int32),
        document_at=document_at,
        latents=mean,
        latent_std=std,
        image_document=np.repeat(np.arange(len(pieces), dtype=np.int32), [len(piece.image_at) for piece in pieces]),
        image_at=np.array(image_at, np.int64),
        image_first=np.array([first for piece in pieces for first in _images_first(piece, eos)], np.bool_),
        keys=keys,
        key_at=key_at,
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
