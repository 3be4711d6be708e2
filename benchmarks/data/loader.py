"""Documents a second that reach training, beside webdataset's: the same documents and latents, in turn, in one process.

Ours ends in a whole batch: documents in shuffled packed rows, their layout, the intervals that positions see, targets, dropped
captions, patches. webdataset's ends in decoded arrays of shuffled documents, without any of that; its tars hold the ids and the
mean latents alone, where our shards hold the deviations too.
"""

from __future__ import annotations

import io
import statistics
import tarfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from components.data.encode.packing import PACKING, pack, write_packing
from components.data.loader import PackedRows, rows_of_step
from components.data.shards import Shard, open_shard, pack_keys, shard_path, write_shard
from core.manifest import write_manifest

SPECIAL_IDS = {"pad": 0, "bos": 1, "eos": 2, "boi": 3, "eoi": 4}
VOCAB_SIZE = 8192
SHUFFLED = 1000


class Size(NamedTuple):
    """latent: (C, Y, X). patch_side: latent pixels. row_length: positions. batch_rows: of one batch. documents: in all."""

    latent: tuple[int, int, int]
    patch_side: int
    row_length: int
    batch_rows: int
    documents: int

    @property
    def patches(self) -> int:
        return self.latent[1] * self.latent[2] // self.patch_side**2


# The demonstration's latents and rows, and the paper's (256 px, 8x8 pixels a latent one, 2 x 2 latent pixels a patch).
SIZES = {
    "demonstration": Size((8, 8, 8), 4, 256, 16, 40_000),
    "paper": Size((8, 32, 32), 2, 4096, 4, 6_000),
}


def measure(folder: Path, *, quick: bool, rounds: int, seconds: float, seed: int) -> dict[str, Any]:
    """loader_ratio, the lower of both sizes, and the rates of both."""
    raw = {}
    for name, size in SIZES.items():
        if quick:
            size = size._replace(documents=size.documents // 40)
        raw[name] = _compare(folder / name, size, rounds, seconds, seed)
    return {"loader_ratio": min(each["ratio"] for each in raw.values()), "loader": raw}


def write_latents(folder: Path, size: Size, seed: int, num_shards: int = 4) -> None:
    """A training split of captioned images, and of text alone in every fifth document."""
    generator = np.random.default_rng(seed)
    lengths = []
    for number, part in enumerate(np.array_split(np.arange(size.documents), num_shards)):
        shard = _shard(generator, part, size)
        write_shard(shard_path(folder, "train", number), shard)
        images = np.bincount(shard.image_document, minlength=len(part))
        lengths.append(np.diff(shard.document_at) + images * size.patches)
    write_packing(folder / "train" / PACKING, pack(np.concatenate(lengths), size.row_length))
    facts = {"latent_shape": size.latent, "patch_side": size.patch_side, "row_length": size.row_length}
    write_manifest(folder, kind="latents", vocab_size=VOCAB_SIZE, special_ids=SPECIAL_IDS, **facts)


def write_tars(latents: Path, folder: Path, samples_per_tar: int) -> list[str]:
    """The documents of `latents` as webdataset has them: key.ids.npy, and key.latent.npy where there is an image."""
    folder.mkdir(parents=True)
    names: list[str] = []
    for path in sorted((latents / "train").glob("shard-*")):
        shard = open_shard(path)
        image_at = np.searchsorted(shard.image_document, np.arange(len(shard.document_at)))
        for start in range(0, len(shard.document_at) - 1, samples_per_tar):
            names.append(str(folder / f"{len(names):05d}.tar"))
            with tarfile.open(names[-1], "w") as tar:
                for index in range(start, min(start + samples_per_tar, len(shard.document_at) - 1)):
                    key = f"{path.stem}-{index:06d}"
                    _add(tar, f"{key}.ids.npy", shard.ids[shard.document_at[index] : shard.document_at[index + 1]])
                    if image_at[index + 1] > image_at[index]:
                        _add(tar, f"{key}.latent.npy", shard.latents[image_at[index]])
    return names


def ours(rows: PackedRows, size: Size, seed: int) -> Iterator[int]:
    """Batches without end; yields the documents in each."""
    step = 0
    while True:
        numbers = rows_of_step(seed, step, size.batch_rows, rows.num_rows)
        batch = rows.batch(
            numbers, step=step, seed=seed, patch_side=size.patch_side, caption_dropout=0.1, image_first_time_limit=0.5
        )
        yield int((batch.input_ids == SPECIAL_IDS["bos"]).sum())
        step += 1


def theirs(tars: Sequence[str], seed: int) -> Iterator[int]:
    """Documents without end, one by one."""
    from webdataset.compat import WebDataset

    samples = WebDataset(list(tars), shardshuffle=len(tars), seed=seed).shuffle(SHUFFLED).decode()
    while True:
        for sample in samples:  # type: ignore[attr-defined]
            assert sample["ids.npy"].dtype == np.int32
            yield 1


def rate(documents: Iterator[int], seconds: float) -> float:
    """Documents a second, over so many seconds."""
    number, started_s, now_s = 0, time.perf_counter(), 0.0
    while now_s < seconds:
        number += next(documents)
        now_s = time.perf_counter() - started_s
    return number / now_s


def _compare(folder: Path, size: Size, rounds: int, seconds: float, seed: int) -> dict[str, Any]:
    write_latents(folder / "latents", size, seed)
    tars = write_tars(folder / "latents", folder / "tars", samples_per_tar=1000)
    sides = {
        "ours": ours(PackedRows(folder / "latents", "train", None), size, seed),
        "webdataset": theirs(tars, seed),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for documents in sides.values():
        rate(documents, seconds / 2)
    for _ in range(rounds):
        for name, documents in sides.items():
            rates[name].append(rate(documents, seconds))
    medians = {f"{name}_per_s": round(statistics.median(found)) for name, found in rates.items()}
    return {"ratio": round(medians["ours_per_s"] / medians["webdataset_per_s"], 2), **medians, "documents": size.documents}


def _shard(generator: np.random.Generator, part: np.ndarray, size: Size) -> Shard:
    ids, document_at, image_at = [], [0], []
    for index in range(len(part)):
        words = generator.integers(5, VOCAB_SIZE, int(generator.integers(8, 60))).tolist()
        if index % 5:
            image_at.append(document_at[-1] + 1 + len(words))
            words += [SPECIAL_IDS["boi"], SPECIAL_IDS["eoi"]]
        ids += [SPECIAL_IDS["bos"], *words, SPECIAL_IDS["eos"]]
        document_at.append(len(ids))
    latents = generator.standard_normal((len(image_at), *size.latent), np.float32).astype(np.float16)
    keys, key_at = pack_keys(f"made/{number}" for number in part)
    return Shard(
        ids=np.array(ids, np.int32),
        document_at=np.array(document_at, np.int64),
        latents=latents,
        latent_std=np.full_like(latents, 0.1),
        image_document=np.flatnonzero(np.arange(len(part)) % 5).astype(np.int32),
        image_at=np.array(image_at, np.int64),
        image_first=np.zeros(len(image_at), np.bool_),
        keys=keys,
        key_at=key_at,
    )


def _add(tar: tarfile.TarFile, name: str, array: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array)
    entry = tarfile.TarInfo(name)
    entry.size = buffer.tell()
    buffer.seek(0)
    tar.addfile(entry, buffer)
