"""The rows that a training step sees, as a batch: from memory-mapped shards, keyed by (seed, step).

The order of the rows, the dropped captions and the view and draw of every latent are pure functions of (seed, step, index):
resuming takes the step alone.

Legend: R packed rows and N documents of the split, B rows, D documents and M images of a batch, L row length, n patches an
image, V views of an image (variants.py), C latent channels, Y/X latent height/width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from components.data.encode.packing import PACKING, open_packing
from components.data.quarantine import read_keys
from components.data.row_layout import RowForm, lay_out
from components.data.shard_cache import SplitFiles, open_split
from components.data.shards import Shard, check_shard, open_shard, shard_keys
from core.errors import BadInput
from core.random import generator, philox, seed_of, uniform
from model.batch import Batch
from model.latents.patches import patchify

# Streams of their own beside the one that drops captions and those of the noise.
VIEW_STREAM, LATENT_STREAM = 0x76696577, 0x6C6174656E74


class Documents(NamedTuple):
    """Where each document of a split lies, all int64 [N]."""

    shard: np.ndarray
    token_start: np.ndarray
    """Where its slice of the shard's ids begins."""
    token_end: np.ndarray
    image_start: np.ndarray
    """Where its slice of the shard's images begins."""
    image_end: np.ndarray


def rows_of_step(seed: int, step: int, batch_rows: int, num_rows: int) -> np.ndarray:
    """The rows of one step over all workers, int64 [batch_rows]; a worker takes its slice.

    Rows come in epochs, each a permutation of its own; a step may end one epoch and begin the next.
    """
    # By the number of the sample and not of the worker: any number of workers sees the same rows.
    sample = np.arange(step * batch_rows, (step + 1) * batch_rows)
    rows = np.empty(batch_rows, np.int64)
    for epoch in range(int(sample[0]) // num_rows, int(sample[-1]) // num_rows + 1):
        inside = sample // num_rows == epoch
        rows[inside] = _permutation(seed, epoch, num_rows)[sample[inside] % num_rows]
    return rows


class ImageDocument(NamedTuple):
    """A document with images, as it was stored."""

    ids: np.ndarray
    """int64, its stream."""
    sample_index: np.ndarray
    """int64 [M], the number of each of its images in the split."""
    patches: torch.Tensor
    """float32 [M * n, W], of its images: no other view of them, no draw."""


class PackedRows:
    """The packed rows of one split of data/latents, checked against the manifest when opened.

    num_rows: R. num_views: V. row_length: L. patch_side, latent_shape (C, Y, X), vocab_size, special_ids: as encoded.
    form: of all rows. num_images: of the split. num_left_out: documents that the gate quarantined; no batch holds them.
    """

    def __init__(self, folder: Path | str, split: str, quarantine: Path | None) -> None:
        """folder: may be a URL, and the environment may name one to read instead (shard_cache.py).

        quarantine: what the gate of the latents quarantined (data/quarantine/latents.jsonl); None reads everything.
        """
        # Kept, because the cache may remove files whose locks are closed.
        self._found = open_split(folder, split)
        manifest = self._found.manifest
        self.row_length: int = manifest["row_length"]
        self.patch_side: int = manifest["patch_side"]
        self.latent_shape: tuple[int, int, int] = tuple(manifest["latent_shape"])
        self.vocab_size: int = manifest["vocab_size"]
        self.special_ids: dict[str, int] = manifest["special_ids"]
        self.form = RowForm(self.row_length, self.patches_per_image, self.special_ids["boi"], self.special_ids["pad"])
        self._shards = _open_shards(self._found, f"{folder}, {split} split", self.special_ids["boi"])
        self.num_views = 1 if self._shards[0].variants is None else 1 + self._shards[0].variants.shape[1]
        self._documents, self._image_offset = _index(self._shards)
        self._patch_order = _patch_order(self.latent_shape, self.patch_side)
        self._packing = open_packing(self._found.files[PACKING])
        self._kept = self._not_in(read_keys(quarantine) if quarantine else frozenset())
        self.num_left_out = int((~self._kept).sum())
        self.num_rows = len(self._packing.row_at) - 1
        self.num_images = int(self._image_offset[-1])
        if self.num_rows == 0:
            raise BadInput(f"{folder} has no rows of the {split} split; give ingest documents for it and run `dvc repro`")

    def batch(
        self,
        rows: Sequence[int] | np.ndarray,
        *,
        step: int,
        seed: int,
        patch_side: int,
        caption_dropout: float,
        image_first_time_limit: float,
        resample_latents: bool = False,
    ) -> Batch:
        """The batch of `rows`. caption_dropout: share of images that see nothing before themselves in this step.

        image_first_time_limit: largest noise level of images that precede their caption (paper, Sec. 4.3.4).
        resample_latents: draw latents from the autoencoder's posterior instead of taking its mean.
        """
        if patch_side != self.patch_side:
            raise BadInput(f"rows were packed for patch_side {self.patch_side}, not {patch_side}; run `dvc repro encode`")
        # All documents of the batch at once from here on, in arrays: there may be thousands of them in a step.
        start, chosen = self._documents_of(np.asarray(rows, np.int64))
        tokens, document_at = self._tokens(chosen)
        sample, shard, in_shard = self._images(chosen)
        latents, image_first = self._latents(sample, shard, in_shard, seed, step, resample_latents)
        layout = lay_out(
            self.form,
            tokens,
            document_at,
            start,
            # By the image's number in the split, so that neither its neighbours nor the number of workers matter.
            hidden_captions=uniform(seed, step, sample) < caption_dropout,
            num_rows=len(rows),
        )
        return layout.batch(
            self._patches(latents),
            self.grid,
            sample_index=torch.from_numpy(sample),
            time_limit=torch.from_numpy(np.where(image_first, np.float32(image_first_time_limit), np.float32(1.0))),
        )

    def captions(self, number: int) -> list[list[int]]:
        """Token ids of the first `number` different texts beside an image, in the order of the kept documents."""
        documents, controls = self._documents, set(self.special_ids.values())
        found: dict[tuple[int, ...], None] = {}
        for document in np.flatnonzero(self._kept & (documents.image_end > documents.image_start)):
            tokens, _ = self._tokens(np.array([document]))
            found[tuple(token for token in tokens.tolist() if token not in controls)] = None
            # An image without a text is no caption.
            found.pop((), None)
            if len(found) == number:
                break
        return [list(caption) for caption in found]

    def image_documents(self, number: int) -> list[ImageDocument]:
        """So many kept documents with images, evenly spread over all of them; all where there are fewer."""
        there, found = np.flatnonzero(self._kept & (self._documents.image_end > self._documents.image_start)), []
        # A row each, because what follows takes arrays of documents.
        for document in there[np.linspace(0, len(there), min(number, len(there)), endpoint=False).astype(int), None]:
            sample, shard, in_shard = self._images(document)
            latents = torch.from_numpy(self._shards[shard[0]].latents[in_shard]).float()
            found.append(ImageDocument(self._tokens(document)[0].astype(np.int64), sample, self._patches(latents.flatten(1))))
        return found

    def _patches(self, latents: torch.Tensor) -> torch.Tensor:
        return latents.index_select(1, self._patch_order).view(-1, self.latent_shape[0] * self.patch_side**2)

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across an image."""
        _, height, width = self.latent_shape
        return height // self.patch_side, width // self.patch_side

    @property
    def patches_per_image(self) -> int:
        """Row positions of an image without its markers."""
        return self.grid[0] * self.grid[1]

    def _documents_of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The kept documents of `rows` in order: where each begins in the flattened rows, and which it is, both [D]."""
        at, document, start, _ = self._packing
        entry = _ranges(at[rows], at[rows + 1])
        entry_row = np.repeat(np.arange(len(rows)), at[rows + 1] - at[rows])
        # A quarantined document leaves its place empty: to pack anew would change every other row.
        kept = self._kept[document[entry]]
        entry, entry_row = entry[kept], entry_row[kept]
        return entry_row * self.row_length + start[entry], document[entry]

    def _tokens(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shard, start, end = (
            self._documents.shard[chosen],
            self._documents.token_start[chosen],
            self._documents.token_end[chosen],
        )
        # Slices of mapped files: only the pages of these documents are read.
        parts = [self._shards[s].ids[a:b] for s, a, b in zip(shard.tolist(), start.tolist(), end.tolist(), strict=True)]
        tokens = np.concatenate(parts) if parts else np.empty(0, np.int32)
        return tokens, np.concatenate([[0], np.cumsum(end - start)])

    def _images(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the documents' images in order, all int64 [M]: number in the split, shard, and number in the shard."""
        start, end = self._documents.image_start[chosen], self._documents.image_end[chosen]
        shard, in_shard = np.repeat(self._documents.shard[chosen], end - start), _ranges(start, end)
        return self._image_offset[shard] + in_shard, shard, in_shard

    def _latents(
        self, sample: np.ndarray, shard: np.ndarray, in_shard: np.ndarray, seed: int, step: int, resample: bool
    ) -> tuple[torch.Tensor, np.ndarray]:
        """Latents float32 [M, C * Y * X] and image_first bool [M] of images as `_images` finds them."""
        # A batch's images lie in few shards: one indexed read each, instead of one an image.
        mean = np.empty((len(sample), *self.latent_shape), np.float16)
        std = np.empty_like(mean) if resample else None
        image_first = np.empty(len(sample), np.bool_)
        view = self._views(sample, seed, step)
        for number in np.unique(shard).tolist():
            stored = self._shards[number]
            here = np.flatnonzero(shard == number)
            image_first[here] = stored.image_first[in_shard[here]]
            mean[here] = _viewed(stored.latents, stored.variants, in_shard[here], view[here])
            if std is not None:
                std[here] = _viewed(stored.latent_std, stored.variant_std, in_shard[here], view[here])
        latents = torch.from_numpy(mean).float()
        if std is not None:
            latents += torch.from_numpy(std).float() * _normal(seed, step, sample, self.latent_shape)
        return latents.flatten(1), image_first

    def _views(self, sample: np.ndarray, seed: int, step: int) -> np.ndarray:
        """Which view of each image this step sees, int64 [M]."""
        if self.num_views == 1:
            return np.zeros(len(sample), np.int64)
        return (uniform(seed ^ VIEW_STREAM, step, sample) * self.num_views).astype(np.int64)

    def _not_in(self, left_out: frozenset[str]) -> np.ndarray:
        """bool [N]: documents that are not left out."""
        if not left_out:
            return np.ones(len(self._documents.shard), np.bool_)
        return np.array([key not in left_out for shard in self._shards for key in shard_keys(shard)], np.bool_)


def _open_shards(found: SplitFiles, where: str, boi: int) -> list[Shard]:
    paths = [path for name, path in found.files.items() if name.startswith("shard-")]
    if not paths or PACKING not in found.files:
        raise BadInput(f"{where}: there are no packed shards; give ingest documents for it and run `dvc repro`")
    shards = [open_shard(path) for path in paths]
    for path, shard in zip(paths, shards, strict=True):
        check_shard(path, shard, boi=boi)
    return shards


def _index(shards: Sequence[Shard]) -> tuple[Documents, np.ndarray]:
    """Where every document lies, and the number in the split of each shard's first image, int64 [shards + 1]."""
    per_shard = []
    for number, shard in enumerate(shards):
        num_documents = len(shard.document_at) - 1
        # image_document ascends, so that a document's images are one slice.
        images = np.searchsorted(shard.image_document, np.arange(num_documents + 1))
        owner = np.full(num_documents, number)
        per_shard.append(Documents(owner, shard.document_at[:-1], shard.document_at[1:], images[:-1], images[1:]))
    index = Documents(*(np.concatenate(parts) for parts in zip(*per_shard, strict=True)))
    return index, np.cumsum([0, *(len(shard.image_at) for shard in shards)], dtype=np.int64)


def _ranges(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """start[0], start[0] + 1, ..., end[0] - 1, start[1], ..."""
    length = end - start
    return np.arange(length.sum()) + np.repeat(start - (np.cumsum(length) - length), length)


def _patch_order(latent_shape: tuple[int, int, int], patch_side: int) -> torch.Tensor:
    """Which numbers of a flattened latent its patches hold, one after the other, int32 [C * Y * X]; ten times quicker to apply
    than `patchify` itself."""
    number = torch.arange(math.prod(latent_shape)).view(1, *latent_shape)
    return patchify(number, (patch_side, patch_side)).flatten().int()


def _viewed(whole: np.ndarray, others: np.ndarray | None, image: np.ndarray, view: np.ndarray) -> np.ndarray:
    """Of each image the latent of its view: float16 [M, C, Y, X] of whole [all, C, Y, X] and others [all, V - 1, C, Y, X]."""
    found = whole[image]
    if others is not None:
        seen = np.flatnonzero(view)
        found[seen] = others[image[seen], view[seen] - 1]
    return found


def _normal(seed: int, step: int, sample: np.ndarray, shape: tuple[int, ...]) -> torch.Tensor:
    """Normal numbers float32 [M, *shape], a stream of its own for each image in each step."""
    noise = np.empty((len(sample), *shape), np.float32)
    # A stream for each image, so that its noise does not depend on who else is in the batch.
    streams = philox(seed_of(seed, step, number, LATENT_STREAM) for number in sample.tolist())
    for into, stream in zip(noise, streams, strict=True):
        stream.standard_normal(dtype=np.float32, out=into)
    return torch.from_numpy(noise)


# Two, for a step may end one epoch and begin the next.
@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, num_rows: int) -> np.ndarray:
    return generator(seed, epoch).permutation(num_rows)
