"""How are all documents encoded, by any number of workers, in any number of attempts? Part by part, kept when done.

A finished part is a shard with a note beside it, in a folder outside DVC's outs, named by the digest of everything the
result depends on; the next attempt checks the note's sha256 and does only what is missing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from components.data.documents import SPLITS, document_parts, read_part
from components.data.latents import EncodeSettings, encode_part
from components.data.packing import fill, pack, write_packing
from components.data.shards import FORMAT_VERSION, KIND, open_shard, shard_path, shard_paths, write_shard
from components.data.tokenizer import load_tokenizer
from components.runtime import files
from components.runtime.cluster import device, map_over_actors, num_map_actors, start_ray
from components.runtime.failure import BadInput
from model.autoencoder import Autoencoder


class Sources(NamedTuple):
    """Folders of documents, tokenizer and autoencoder. quarantine: names the gate of the documents set aside."""

    documents: Path
    tokenizer: Path
    autoencoder: Path
    quarantine: frozenset[str]


class PartEncoder:
    """One worker: an autoencoder and a tokenizer, and part after part."""

    def __init__(self, sources: Sources, settings: EncodeSettings) -> None:
        import torch

        # One thread, and no kernels chosen by timing: bytes must not depend on how many workers share the machine.
        torch.set_num_threads(1)
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        self.left_out, self.settings, self.device = sources.quarantine, settings, device()
        self.tokenizer = load_tokenizer(sources.tokenizer)
        self.autoencoder = Autoencoder.from_pretrained(sources.autoencoder).to(self.device)

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        """Encode {"part": path} into {"shard": path}, then write the note that says it is finished."""
        documents, shard = read_part(Path(item["part"])), Path(item["shard"])
        encoded = encode_part(
            documents, self.tokenizer, self.autoencoder, self.settings, device=self.device, left_out=self.left_out
        )
        write_shard(shard, encoded.shard)
        note = {"sha256": files.sha256(shard), "rows": encoded.rows, "set_aside": encoded.set_aside}
        files.write_json(shard.with_suffix(".json"), note)
        return {"num_documents": len(encoded.rows), "num_images": len(encoded.shard.image_at)}


def work_digest(sources: Sources, settings: EncodeSettings) -> str:
    """A name for this work: equal where the inputs, the settings and the code that encodes are equal."""
    modules = ("encoding", "latents", "shards", "tokenizer", "images")
    manifests = (sources.documents, sources.tokenizer, sources.autoencoder)
    facts = {
        "inputs": [files.sha256(folder / files.MANIFEST) for folder in manifests],
        "quarantine": sorted(sources.quarantine),
        "settings": settings._asdict(),
        "format": FORMAT_VERSION,
        "code": [files.sha256(Path(__file__).with_name(f"{name}.py")) for name in modules],
    }
    return files.digest(facts)[:16]


def plan(sources: Sources, work: Path) -> list[dict[str, Any]]:
    """One item for PartEncoder a part of documents; its shard has the part's number."""
    return [
        {"part": str(part.absolute()), "shard": str(shard_path(work.absolute(), split, number))}
        for split in SPLITS
        for number, part in enumerate(document_parts(sources.documents, split))
    ]


def encode_parts(sources: Sources, settings: EncodeSettings, work: Path) -> None:
    """Make every shard that `work` lacks, by Ray actors; one line of progress every few seconds."""
    items = plan(sources, work)
    if not items:
        raise BadInput(f"{sources.documents} holds no documents; run `dvc repro ingest`")
    todo = [item for item in items if not _is_finished(Path(item["shard"]))]
    print(f"encode: {len(items) - len(todo)} of {len(items)} parts are there already, {len(todo)} to do", flush=True)
    if not todo:
        return
    # Workers may start in another folder.
    documents, tokenizer, autoencoder = (folder.absolute() for folder in sources[:3])
    absolute = Sources(documents, tokenizer, autoencoder, sources.quarantine)
    with start_ray():
        started_s, said_s, num_images = time.monotonic(), 0.0, 0
        results = map_over_actors(todo, PartEncoder, {"sources": absolute, "settings": settings}, num_map_actors())
        for done, result in enumerate(results, start=1):
            num_images += result["num_images"]
            spent_s = time.monotonic() - started_s
            if spent_s - said_s > 5 or done == len(todo):
                said_s, eta_s = spent_s, spent_s / done * (len(todo) - done)
                rate = num_images / spent_s
                print(f"encode: part {done}/{len(todo)} | {rate:.0f} images/s | eta {eta_s:.0f} s", flush=True)


def assemble(sources: Sources, settings: EncodeSettings, work: Path, target: Path) -> dict[str, Any]:
    """Pack the finished shards, write table, packing and manifest, and publish all as `target`; returns the report."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = files.fresh_folder(work / "out")
    rows, set_aside, splits = [], [], {}
    for split in SPLITS:
        (out / split).mkdir()
        notes = [(path, files.read_json(path.with_suffix(".json"))) for path in shard_paths(work, split)]
        for path, _ in notes:
            os.link(path, out / split / path.name)
        of_split = [row for _, note in notes for row in note["rows"]]
        splits[split] = _pack_split(out / split, of_split, settings.row_length)
        rows += of_split
        set_aside += [entry for _, note in notes for entry in note["set_aside"]]
    pq.write_table(pa.Table.from_pylist(rows, schema=_table_schema()), out / "table.parquet", compression="zstd")
    facts = _facts(out, sources, settings, splits, len(set_aside))
    files.write_manifest(out, kind=KIND, **facts)
    report = facts | {"set_aside": set_aside[:20], "latents": _statistics(out)}
    files.publish(out, target)
    return report


def _is_finished(shard: Path) -> bool:
    note = shard.with_suffix(".json")
    return note.is_file() and shard.is_file() and files.read_json(note)["sha256"] == files.sha256(shard)


def _pack_split(folder: Path, rows: list[dict[str, Any]], row_length: int) -> dict[str, Any]:
    lengths = np.array([row["num_positions"] for row in rows], np.int64)
    packing = pack(lengths, row_length)
    write_packing(folder / "packing.safetensors", packing)
    return {
        "num_documents": len(rows),
        "num_images": sum(row["num_images"] for row in rows),
        "num_tokens": sum(row["num_tokens"] for row in rows),
        "num_rows": len(packing.row_at) - 1,
        "packing_fill": round(fill(packing, lengths, row_length), 6),
    }


def _facts(
    folder: Path,
    sources: Sources,
    settings: EncodeSettings,
    splits: Mapping[str, Mapping[str, Any]],
    num_set_aside: int,
) -> dict[str, Any]:
    """What a reader of the shards must know; counts are keyed by the split."""
    tokenizer = load_tokenizer(sources.tokenizer)
    some_shard = next(path for split in SPLITS for path in shard_paths(folder, split))
    counts = {
        name: {split: splits[split][name] for split in SPLITS}
        for name in ("num_documents", "num_images", "num_tokens", "num_rows", "packing_fill")
    }
    return counts | {
        "num_set_aside": num_set_aside,
        "latent_shape": list(open_shard(some_shard).latents.shape[1:]),
        "patch_side": settings.patch_side,
        "row_length": settings.row_length,
        "autoencoder_sha256": files.sha256(sources.autoencoder / files.MANIFEST),
        "vocab_size": tokenizer.vocab_size,
        "special_ids": tokenizer.special_ids,
    }


def _statistics(folder: Path) -> dict[str, Any]:
    """Mean and deviation of each latent channel over the training split, in float64 and in the order of the shards."""
    num_values, total, squares = 0, 0.0, 0.0
    for path in shard_paths(folder, "train"):
        latents = open_shard(path).latents.astype(np.float64)
        num_values += latents.size // max(1, latents.shape[1])
        total, squares = total + latents.sum((0, 2, 3)), squares + np.square(latents).sum((0, 2, 3))
    if not num_values:
        return {"mean": [], "std": []}
    mean = np.asarray(total) / num_values
    std = np.sqrt(np.maximum(np.asarray(squares) / num_values - mean**2, 0))
    return {"mean": [round(float(value), 5) for value in mean], "std": [round(float(value), 5) for value in std]}


def _table_schema() -> Any:
    import pyarrow as pa

    text, count, value = pa.string(), pa.int64(), pa.float64()
    columns = {"key": text, "document": text, "source": text, "split": text}
    columns |= {"num_tokens": count, "num_images": count, "num_positions": count, "latent_finite": pa.bool_()}
    columns |= {"latent_mean": value, "latent_std_min": value, "latent_std_max": value}
    return pa.schema(list(columns.items()))
