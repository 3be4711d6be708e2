"""From finished parts to the folder that training reads: joined, mixed, packed, counted, and published at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from components.data.documents import SPLITS
from components.data.encode.encoding import Sources
from components.data.encode.latents import EncodeSettings
from components.data.encode.mixture import MixtureStatistics, repeats, report
from components.data.encode.packing import PACKING, fill, pack, write_packing
from components.data.shards import KIND, Shard, open_shard, shard_path, shard_paths, write_shard
from components.runtime.ancestors import ANCESTORS
from components.runtime.progress import Progress
from core import files
from core.manifest import write_manifest
from core.random import words_of
from core.tokenizer import load_tokenizer

NUM_SET_ASIDE_SHOWN = 20
IMAGES_AT_A_TIME = 4096


class Assembly(NamedTuple):
    """How parts become the folder that training reads."""

    weights: Mapping[str, float]
    """Source -> how often its documents stand in an epoch, 1 where it is not named."""
    text_to_image_ratio: float
    """Positions of text for each of an image, 0 for what there is. Both act on the training split alone: what is measured
    stays whole."""
    shard_bytes: int
    """Parts are joined up to this size."""
    ancestors: Mapping[str, str]
    """Of the latents, for their manifest."""


def assemble(sources: Sources, settings: EncodeSettings, assembly: Assembly, work: Path, target: Path) -> dict[str, Any]:
    """Join and pack the finished parts of `work`, write table and manifest, and publish all as `target`; returns the report."""
    import pyarrow.parquet as pq

    out = files.fresh_folder(work / "out")
    splits: dict[str, dict[str, Any]] = {}
    records: dict[str, int] = {}
    set_aside: list[dict[str, str]] = []
    writer = pq.ParquetWriter(out / "table.parquet", _table_schema(), compression="zstd", write_page_checksum=True)
    with files.named(out), writer as table:
        for split in SPLITS:
            (out / split).mkdir()
            parts = shard_paths(work, split)
            statistics = _gather(parts, table, set_aside)
            records |= _merge_parts(parts, out, split, assembly.shard_bytes)
            splits[split] = _pack_split(out / split, statistics, settings.row_length, assembly if split == "train" else None)
    facts: dict[str, Any] = _facts(out, sources, settings, splits, len(set_aside)) | {ANCESTORS: dict(assembly.ancestors)}
    write_manifest(out, kind=KIND, records=records, **facts)
    whole = facts | {"set_aside": set_aside[:NUM_SET_ASIDE_SHOWN], "latents": _statistics(out)}
    files.atomic_replace(out, target)
    return whole


def group_by_size(sizes: Sequence[int], most: int) -> list[slice]:
    """Neighbours to merge: as many as stay within `most` together, and one alone where it is larger by itself."""
    groups: list[slice] = []
    start, total = 0, 0
    for index, size in enumerate(sizes):
        if index > start and total + size > most:
            groups.append(slice(start, index))
            start, total = index, 0
        total += size
    return [*groups, slice(start, len(sizes))] if sizes else []


def merge_shards(shards: Sequence[Shard]) -> Shard:
    """One shard of the documents of all, in order; all have variants, or none has."""
    whole = {
        name: np.concatenate([getattr(shard, name) for shard in shards])
        for name, value in zip(Shard._fields, shards[0], strict=True)
        if value is not None
    }
    num_documents = [len(shard.document_at) - 1 for shard in shards]
    num_tokens = [len(shard.ids) for shard in shards]
    # Each shard counts these four from its own beginning; here they are counted from that of the whole.
    whole["document_at"] = _chained([shard.document_at for shard in shards])
    whole["key_at"] = _chained([shard.key_at for shard in shards])
    whole["image_document"] = _shifted([shard.image_document for shard in shards], num_documents)
    whole["image_at"] = _shifted([shard.image_at for shard in shards], num_tokens)
    return Shard(**whole)


def _chained(bounds: Sequence[np.ndarray]) -> np.ndarray:
    """Bounds 0, ..., end of several arrays as those of the arrays one after the other."""
    return np.cumsum(np.concatenate([[0], *(np.diff(bound) for bound in bounds)]), dtype=np.int64)


def _shifted(indices: Sequence[np.ndarray], lengths: Sequence[int]) -> np.ndarray:
    """Indices into several arrays as indices into the arrays one after the other; the type stays."""
    before = np.cumsum([0, *lengths[:-1]])
    return np.concatenate([index + index.dtype.type(shift) for index, shift in zip(indices, before, strict=True)])


def _gather(parts: Sequence[Path], table: Any, set_aside: list[dict[str, str]]) -> MixtureStatistics:
    """The documents of a split from its parts' notes, one part in memory at a time; their rows go into the table."""
    import pyarrow as pa

    sources: dict[str, int] = {}
    # Empty ones first: a split without documents has no parts, and nothing to concatenate.
    numbers, keys = [np.empty((3, 0), np.int64)], [np.empty(0, np.uint64)]
    for path in parts:
        note = files.read_json(path.with_suffix(".json"))
        rows = note["rows"]
        set_aside += note["set_aside"]
        if rows:
            table.write_table(pa.Table.from_pylist(rows, schema=_table_schema()))
        source = [sources.setdefault(row["source"], len(sources)) for row in rows]
        text, positions = ([row[name] for row in rows] for name in ("num_tokens", "num_positions"))
        numbers.append(np.array([source, text, positions], np.int64))
        keys.append(words_of(row["key"] for row in rows))
    source, text, positions = np.concatenate(numbers, axis=1)
    return MixtureStatistics(tuple(sources), source, text, positions - text, np.concatenate(keys))


def _merge_parts(parts: Sequence[Path], out: Path, split: str, shard_bytes: int) -> dict[str, int]:
    """Write the split's shards; returns the number of documents in each file."""
    records = {}
    groups = group_by_size([path.stat().st_size for path in parts], shard_bytes)
    with Progress(f"encode: {split} shards", unit="shards", total=len(groups)) as progress:
        for number, group in enumerate(progress.over(groups)):
            path = shard_path(out, split, number)
            if len(parts[group]) == 1:
                # The usual case, and latents are most of what lies on the disk: no second copy of them.
                files.link_or_copy(parts[group][0], path)
            else:
                write_shard(path, merge_shards([open_shard(part) for part in parts[group]]))
            records[str(path.relative_to(out))] = len(open_shard(path).document_at) - 1
    return records


def _pack_split(folder: Path, statistics: MixtureStatistics, row_length: int, assembly: Assembly | None) -> dict[str, Any]:
    """Write the split's rows and return what they hold. assembly: None leaves every document as often as it is."""
    lengths = statistics.text + statistics.image
    times = np.ones(len(lengths), np.int64)
    if assembly:
        times = repeats(statistics, assembly.weights, assembly.text_to_image_ratio)
    packing = pack(lengths, row_length, times)
    write_packing(folder / PACKING, packing)
    return {
        "num_documents": len(lengths),
        "num_tokens": int(statistics.text.sum()),
        "num_rows": len(packing.row_at) - 1,
        "packing_fill": round(fill(packing, row_length), 6),
        "mixture": report(statistics, times),
    }


def _facts(
    folder: Path, sources: Sources, settings: EncodeSettings, splits: Mapping[str, Mapping[str, Any]], num_set_aside: int
) -> dict[str, Any]:
    """What a reader of the shards must know; counts are keyed by the split."""
    tokenizer = load_tokenizer(sources.tokenizer)
    shards = {split: [open_shard(path) for path in shard_paths(folder, split)] for split in SPLITS}
    some_shard = next(shard for split in SPLITS for shard in shards[split])
    counts = {
        name: {split: splits[split][name] for split in SPLITS}
        for name in ("num_documents", "num_tokens", "num_rows", "packing_fill", "mixture")
    }
    return counts | {
        "num_images": {split: sum(len(shard.image_at) for shard in shards[split]) for split in SPLITS},
        "num_set_aside": num_set_aside,
        "latent_shape": list(some_shard.latents.shape[1:]),
        "views": settings.views._asdict(),
        "patch_side": settings.patch_side,
        "row_length": settings.row_length,
        "vocab_size": tokenizer.vocab_size,
        "special_ids": tokenizer.special_ids,
    }


def _statistics(folder: Path) -> dict[str, Any]:
    """Mean and deviation of each latent channel over the training split, in float64 and in the order of the shards."""
    num_values, total, squares = 0, 0.0, 0.0
    for latents in _latents(folder):
        num_values += latents.size // latents.shape[1]
        total, squares = total + latents.sum((0, 2, 3)), squares + np.square(latents).sum((0, 2, 3))
    if not num_values:
        return {"mean": [], "std": []}
    mean = np.asarray(total) / num_values
    # A channel of one value alone can come out a little below 0.
    std = np.sqrt(np.maximum(np.asarray(squares) / num_values - mean**2, 0))
    return {"mean": [round(float(value), 5) for value in mean], "std": [round(float(value), 5) for value in std]}


def _latents(folder: Path) -> Iterator[np.ndarray]:
    """Latents of the training split, float64 [M, C, Y, X], some at a time."""
    for path in shard_paths(folder, "train"):
        latents = open_shard(path).latents
        for start in range(0, len(latents), IMAGES_AT_A_TIME):
            yield latents[start : start + IMAGES_AT_A_TIME].astype(np.float64)


def _table_schema() -> Any:
    import pyarrow as pa

    text, count, value = pa.string(), pa.int64(), pa.float64()
    columns = {"key": text, "document": text, "source": text, "split": text}
    columns |= {"num_tokens": count, "num_images": count, "num_positions": count, "latent_finite": pa.bool_()}
    columns |= {"latent_mean": value, "latent_std_min": value, "latent_std_max": value}
    return pa.schema(list(columns.items()))
