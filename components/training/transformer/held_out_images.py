"""How well a training's weights denoise held-out images, by noise level, and whether they read the captions.

The error is that of the clean latent that the prediction implies, at the signal-to-noise ratios that the cosine schedule has at
the configured levels: so models of any prediction type compare. An image with a caption stands behind it, whatever the corpus'
order, and once more behind another image's caption. The noise is the same in every validation and under both captions.

Legend: D documents, M images and P patches of a batch, W numbers in a patch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from components.data.loader import ImageDocument, PackedRows
from components.data.row_layout import lay_out_streams, without_text
from components.runtime.world import World
from components.training.parallel import evenly
from components.training.precision import autocast
from components.training.transformer.config import TrainConfig
from core.random import seed_of
from model.batch import Batch
from model.diffusion import noise
from model.diffusion.schedules import times_of_equal_snr
from model.transfusion import Transfusion

# Of the noise's key: not that of the losses on held-out rows, nor of a training step.
STREAM = 0x6C6576656C
# Those that another caption is found for, under their own and under the other; and all others, which the gap leaves out.
RIGHT, WRONG, OTHERS = range(3)


class ImageErrors(NamedTuple):
    """Mean squared errors a number of clean latents."""

    x0_error: dict[float, float]
    """By noise level, of all documents; empty where none has an image."""
    caption_gap: float | None
    """What another image's caption adds to it, the mean over the levels, of the documents that one is found for; None where
    no two images have different captions."""


class HeldOutImages:
    """Some held-out documents with images, laid out in rows once."""

    def __init__(self, rows: PackedRows, config: TrainConfig, world: World) -> None:
        self.config, self.world = config, world
        documents = rows.image_documents(config.held_out_images.num_documents)
        captions = [caption_of(rows, document) for document in documents]
        streams = streams_of(rows, documents, captions)
        self.has_images, self.has_captions = bool(documents), bool(streams[WRONG])
        # Each worker measures its share of every part; of some batches, which only keep it in step, nothing counts.
        self._batches = [
            (part, batch, is_counted)
            for part, each in streams.items()
            for batch, is_counted in evenly(
                list(batches_of(rows, each[world.slice_of(len(each))], config.batch_rows)),
                most_batches(rows, each, config.batch_rows, world),
                list(batches_of(rows, each[:1], config.batch_rows)),
            )
        ]

    @torch.inference_mode()
    def measure(self, model: Transfusion) -> ImageErrors:
        """The errors of these weights. All workers measure together."""
        levels = self.config.held_out_images.noise_levels
        times = times_of_equal_snr(model.config.process, levels)
        # Errors by part and level, and in the last column the numbers that they are summed over: workers add up all at once.
        sums = torch.zeros(3, len(levels) + 1, dtype=torch.float64, device=self.world.device)
        for part, batch, is_counted in self._batches:
            for number, time in enumerate(times):
                sums[part, number] += self._squared_error(model, batch, time, number) * is_counted
            sums[part, -1] += batch.latents[0].patches.numel() * is_counted
        self.world.all_reduce(sums)
        errors, counts = sums[:, :-1].cpu(), sums[:, -1:].cpu()
        of_all = (errors[RIGHT] + errors[OTHERS]) / (counts[RIGHT] + counts[OTHERS])
        gap = (errors[WRONG] - errors[RIGHT]).mean() / counts[RIGHT]
        return ImageErrors(
            dict(zip(levels, of_all.tolist(), strict=True)) if self.has_images else {},
            gap.item() if self.has_captions else None,
        )

    def _squared_error(self, model: Transfusion, host_batch: Batch, time: float, number: int) -> torch.Tensor:
        """Of all images of a batch at one time, float64 []."""
        device = self.world.device
        (images,) = host_batch.latents
        per_image = torch.bincount(images.latent_index, minlength=len(images.grids))
        # Keyed by the image's number in its split, so that neither batches nor workers matter.
        key = seed_of(self.config.seed, STREAM, number)
        sampled = noise.sample_noise(key, 0, images.sample_index, per_image, images.patches.shape[-1]).noise.to(device)
        batch = host_batch.to(device)
        (images,), at = batch.latents, torch.full((len(per_image),), time, device=device)
        x_t = noise.add_noise(model.config.process, images.patches, sampled, at[:1])
        with autocast(self.config.precision, device):
            (prediction,) = model(batch, [x_t], [at]).predictions
        return (noise.predicted_x_0(model.config.process, x_t, prediction, at[:1]) - images.patches).double().square().sum()


def streams_of(
    rows: PackedRows, documents: Sequence[ImageDocument], captions: Sequence[np.ndarray]
) -> dict[int, list[tuple[ImageDocument, np.ndarray]]]:
    """Of each part the documents, and the ids that each has there. captions: of each document, empty where it has none."""
    streams: dict[int, list[tuple[ImageDocument, np.ndarray]]] = {RIGHT: [], WRONG: [], OTHERS: []}
    for document, caption, other in zip(documents, captions, other_captions(documents, captions), strict=True):
        ids = behind(rows, caption) if len(caption) else document.ids
        streams[OTHERS if other is None else RIGHT].append((document, ids))
        if other is not None:
            streams[WRONG].append((document, behind(rows, captions[other])))
    return streams


def caption_of(rows: PackedRows, document: ImageDocument) -> np.ndarray:
    """The ids of the text of a document with one image; none for any other."""
    text = document.ids[~np.isin(document.ids, list(rows.special_ids.values()))]
    return text if len(document.sample_index) == 1 else text[:0]


def behind(rows: PackedRows, caption: np.ndarray) -> np.ndarray:
    """The stream of one image behind a caption: [bos] caption [boi] [eoi] [eos]."""
    bos, boi, eoi, eos = (rows.special_ids[name] for name in ("bos", "boi", "eoi", "eos"))
    return np.concatenate([[bos], caption, [boi, eoi, eos]])


def other_captions(documents: Sequence[ImageDocument], captions: Sequence[np.ndarray]) -> list[int | None]:
    """For each document the next one, round about, whose caption and image differ; None where there is no such other.

    Several documents may show one image, each with a caption of its own, and none of these is a wrong one. A document without
    a caption has no other, and is none.
    """

    def differs(index: int, other: int) -> bool:
        is_alike = np.array_equal(captions[other], captions[index])
        return not is_alike and not torch.equal(documents[other].patches, documents[index].patches)

    captioned = [index for index, caption in enumerate(captions) if len(caption)]
    found: list[int | None] = [None] * len(documents)
    for place, index in enumerate(captioned):
        others = captioned[place + 1 :] + captioned[:place]
        found[index] = next((other for other in others if differs(index, other)), None)
    return found


def batches_of(rows: PackedRows, documents: Sequence[tuple[ImageDocument, np.ndarray]], batch_rows: int) -> Iterator[Batch]:
    """Documents with the streams they are to have, as batches of at most so many rows; no text is predicted."""
    at = rows_of(rows, documents)
    for first in range(0, int(at[-1]) + 1 if len(at) else 0, batch_rows):
        here = [number for number, row in enumerate(at) if first <= row < first + batch_rows]
        layout = lay_out_streams(rows.form, [documents[number][1] for number in here], at[here] - first)
        batch = layout.batch(
            torch.cat([documents[number][0].patches for number in here]),
            rows.grid,
            sample_index=torch.from_numpy(np.concatenate([documents[number][0].sample_index for number in here])),
        )
        yield without_text(batch)


def most_batches(rows: PackedRows, documents: Sequence[tuple[ImageDocument, np.ndarray]], batch_rows: int, world: World) -> int:
    """Of `batches_of`, where the workers share the documents, the number that a worker with most of them has."""
    shares = [documents[world._replace(rank=rank).slice_of(len(documents))] for rank in range(world.size)]
    return max(-(-(int(rows_of(rows, share)[-1]) + 1) // batch_rows) if share else 0 for share in shares)


def rows_of(rows: PackedRows, documents: Sequence[tuple[ImageDocument, np.ndarray]]) -> np.ndarray:
    """int64 [D]: the row of each document with the stream that it is to have."""
    lengths = [len(ids) + len(document.sample_index) * rows.patches_per_image for document, ids in documents]
    return rows_in_order(lengths, rows.row_length)


def rows_in_order(lengths: Sequence[int], row_length: int) -> np.ndarray:
    """int64 [D]: the row of each document where each is filled before the next is begun."""
    row, used, found = 0, 0, list[int]()
    for length in lengths:
        if used + length > row_length:
            row, used = row + 1, 0
        used += length
        found.append(row)
    return np.array(found, np.int64)
