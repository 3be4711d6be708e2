"""Documents, ordered text and image segments, and how they lie on disk: in Parquet parts per split.

Every corpus, whatever its format, becomes these; every later stage reads only these.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import BadInput
from core.files import named

SPLITS = ("train", "validation", "test")
# Of a part file: what its writer, and its reader, hold at a time.
GROUP_ROWS = 512

SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        # Exactly one of the two is set in each segment.
        pa.field("segments", pa.list_(pa.struct([("text", pa.string()), ("image", pa.binary())])), nullable=False),
        pa.field("meta", pa.string(), nullable=False),
    ]
)


class TextSegment(NamedTuple):
    text: str


class ImageSegment(NamedTuple):
    """An image of a document."""

    data: bytes
    """The bytes of an encoded image file; PNG of image_side_px square RGB once ingest has written it."""


Segment = TextSegment | ImageSegment


@dataclass(frozen=True, kw_only=True)
class Document:
    """One document."""

    key: str
    """Unique within its source."""
    source: str
    """The corpus's name."""
    segments: tuple[Segment, ...]
    split: str | None = None
    """None until one is chosen; only documents with a split can be written."""
    meta: dict[str, Any] = field(default_factory=dict)
    """JSON-able facts that training does not read."""

    @property
    def texts(self) -> tuple[str, ...]:
        """Of its text segments, in order."""
        return tuple(segment.text for segment in self.segments if isinstance(segment, TextSegment))

    @property
    def images(self) -> tuple[bytes, ...]:
        """The encoded files of its image segments, in order."""
        return tuple(segment.data for segment in self.segments if isinstance(segment, ImageSegment))


def document_name(source: str, key: str) -> str:
    """One name for a document in all corpora: a key is unique only within its source."""
    return f"{source}/{key}"


def write_documents(folder: Path, split: str, documents: Iterable[Document], documents_per_file: int) -> dict[str, int]:
    """Write `folder/<split>/part-00000.parquet` and so on; returns path relative to `folder` -> documents in it."""
    with DocumentWriter(folder, split, documents_per_file) as writer:
        for document in documents:
            writer.add(document)
    return writer.records


def document_parts(folder: Path, split: str) -> list[Path]:
    """The part files of one split in order; an empty list where the split has no documents."""
    return sorted((folder / split).glob("part-*.parquet"))


def read_documents(folder: Path, split: str) -> Iterator[Document]:
    """All documents of one split in written order. Check the folder's manifest before (`read_manifest`)."""
    for part in document_parts(folder, split):
        yield from read_part(part)


def read_part(path: Path) -> Iterator[Document]:
    """The documents of one part file in order, a few hundred in memory at a time; BadInput names a broken file."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for batch in file.iter_batches(batch_size=256):
                yield from map(_document, batch.to_pylist())
    except (OSError, pa.ArrowException) as error:
        raise BadInput(f"{path} cannot be read ({error}); run `dvc repro ingest` to write it again") from None


def document_names(path: Path) -> list[str]:
    """The names of one part file's documents, without a look at what they hold."""
    rows = pq.read_table(path, columns=["source", "key"]).to_pylist()
    return [document_name(row["source"], row["key"]) for row in rows]


class DocumentWriter:
    """Appends documents to one split's part files, a row group in memory at a time, so that no corpus has to fit in memory.

    records: path relative to `folder` -> documents in it, of the parts that are complete.
    """

    def __init__(self, folder: Path, split: str, documents_per_file: int) -> None:
        self.records: dict[str, int] = {}
        self._folder, self._split, self._documents_per_file = folder, split, documents_per_file
        self._rows: list[dict[str, Any]] = []
        self._part: pq.ParquetWriter | None = None
        self._num_in_part = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self._write_group()
        self._end_part()

    def add(self, document: Document) -> None:
        """Queue one document; a full row group is written at once. Its split must be the writer's."""
        assert document.split == self._split, f"{document.key} is of {document.split}, the writer of {self._split}"
        self._rows.append(_row(document))
        is_full = self._num_in_part + len(self._rows) == self._documents_per_file
        if is_full or len(self._rows) == GROUP_ROWS:
            self._write_group()
        if is_full:
            self._end_part()

    def _write_group(self) -> None:
        if self._rows:
            with named(self._folder):
                self._write_rows()

    def _write_rows(self) -> None:
        if self._part is None:
            path = self._folder / self._name()
            path.parent.mkdir(parents=True, exist_ok=True)
            # Images are compressed already, so zstd only gains on the text.
            self._part = pq.ParquetWriter(path, SCHEMA, compression="zstd", write_page_checksum=True)
        self._part.write_table(pa.Table.from_pylist(self._rows, schema=SCHEMA))
        self._num_in_part += len(self._rows)
        self._rows = []

    def _end_part(self) -> None:
        if self._part is not None:
            with named(self._folder):
                self._part.close()
            self.records[self._name()] = self._num_in_part
            self._part, self._num_in_part = None, 0

    def _name(self) -> str:
        return f"{self._split}/part-{len(self.records):05d}.parquet"


def _row(document: Document) -> dict[str, Any]:
    segments = [
        {"text": segment.text, "image": None} if isinstance(segment, TextSegment) else {"text": None, "image": segment.data}
        for segment in document.segments
    ]
    meta = json.dumps(document.meta, sort_keys=True, ensure_ascii=False)
    return {"key": document.key, "source": document.source, "split": document.split, "segments": segments, "meta": meta}


def _document(row: dict[str, Any]) -> Document:
    segments = tuple(
        TextSegment(segment["text"]) if segment["image"] is None else ImageSegment(segment["image"])
        for segment in row["segments"]
    )
    return Document(key=row["key"], source=row["source"], split=row["split"], segments=segments, meta=json.loads(row["meta"]))
