"""The table of what is known of each document without opening it, for the gate and for the counts."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.data.documents import Document, ImageSegment, document_name
from components.data.token_stream import token_stream
from core.files import named
from core.png import decode_png
from core.tokenizer import TextTokenizer

FILE = "table.parquet"
BATCH_ROWS, GROUP_BATCHES = 1024, 20
SUMS = {"images": "num_images", "tokens": "num_tokens", "text_bytes": "num_bytes", "image_bytes": "num_image_bytes"}

# key: document_name(source, key), unique over all corpora.
# num_tokens: of the stored stream, control tokens included, patches not.
# width_px, height_px: of the first image. mean_pixel, std_pixel: of all its images, 0..255. Null without an image.
# sha256: of the content (every segment's kind and bytes), so equal documents have equal ones.
SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "split": pa.string(),
        "source": pa.string(),
        "num_segments": pa.int32(),
        "num_chars": pa.int64(),
        "num_bytes": pa.int64(),
        "num_tokens": pa.int64(),
        "num_images": pa.int32(),
        "num_image_bytes": pa.int64(),
        "image_first": pa.bool_(),
        "width_px": pa.int32(),
        "height_px": pa.int32(),
        "mean_pixel": pa.float64(),
        "std_pixel": pa.float64(),
        "sha256": pa.string(),
    }
)


def document_row(document: Document, tokenizer: TextTokenizer) -> dict[str, Any]:
    """The row of one document; its images are the PNG that ingest wrote."""
    pixels = [decode_png(image) for image in document.images]
    every = np.concatenate([image.ravel() for image in pixels]) if pixels else None
    return {
        "key": document_name(document.source, document.key),
        "split": document.split,
        "source": document.source,
        "num_segments": len(document.segments),
        "num_chars": sum(map(len, document.texts)),
        "num_bytes": sum(len(text.encode()) for text in document.texts),
        "num_tokens": len(token_stream(tokenizer, document).ids),
        "num_images": len(pixels),
        "num_image_bytes": sum(map(len, document.images)),
        "image_first": isinstance(document.segments[0], ImageSegment) if document.segments else None,
        "width_px": pixels[0].shape[1] if pixels else None,
        "height_px": pixels[0].shape[0] if pixels else None,
        "mean_pixel": None if every is None else float(every.mean()),
        "std_pixel": None if every is None else float(every.std()),
        "sha256": _content_digest(document),
    }


class Summary(NamedTuple):
    """What the table holds."""

    num_rows: int
    counts: dict[str, dict[str, dict[str, int]]]
    """Split -> source -> documents, images, tokens, longest_tokens, text_bytes, image_bytes."""


def write_table(folder: Path, rows: Iterable[dict[str, Any]]) -> Summary:
    """Write `folder/table.parquet`, a row group in memory at a time, and sum it up."""
    num_rows, counts = 0, dict[str, dict[str, dict[str, int]]]()
    with named(folder), pq.ParquetWriter(folder / FILE, SCHEMA, compression="zstd", write_page_checksum=True) as writer:
        group: list[pa.RecordBatch] = []
        for batch in _batches(rows):
            num_rows += len(batch)
            for row in batch:
                _count(counts, row)
            # Arrow's columns take a quarter of the dictionaries' memory.
            group.append(pa.RecordBatch.from_pylist(batch, schema=SCHEMA))
            if len(group) == GROUP_BATCHES:
                writer.write_table(pa.Table.from_batches(group))
                group = []
        if group or not num_rows:
            writer.write_table(pa.Table.from_batches(group, schema=SCHEMA))
    return Summary(num_rows, counts)


def _batches(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    left = iter(rows)
    while batch := list(itertools.islice(left, BATCH_ROWS)):
        yield batch


def _count(counts: dict[str, dict[str, dict[str, int]]], row: dict[str, Any]) -> None:
    names = ("documents", "images", "tokens", "longest_tokens", "text_bytes", "image_bytes")
    entry = counts.setdefault(row["split"], {}).setdefault(row["source"], dict.fromkeys(names, 0))
    entry["documents"] += 1
    entry["longest_tokens"] = max(entry["longest_tokens"], row["num_tokens"])
    for name, column in SUMS.items():
        entry[name] += row[column]


def _content_digest(document: Document) -> str:
    digest = hashlib.sha256()
    for segment in document.segments:
        kind, data = ("image", segment.data) if isinstance(segment, ImageSegment) else ("text", segment.text.encode())
        digest.update(f"{kind} {len(data)}\n".encode() + data)
    return digest.hexdigest()
