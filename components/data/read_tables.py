"""How are Parquet and JSONL corpora read? One row a document, columns found by the names that are in common use."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.data.rejected import Rejected
from components.data.rows import CAPTION_FIELDS, KEY_FIELDS, TEXT_FIELDS, Row, first_text
from components.runtime.failure import BadInput

PARQUET_SUFFIXES = (".parquet",)
JSONL_SUFFIXES = (".jsonl", ".jsonl.gz")
IMAGE_COLUMNS = ("image", "img", "jpg", "png", "image_bytes")
MAX_LINE_BYTES = 64 * 2**20


def read_parquet(file: IO[bytes], name: str, source: str) -> Iterator[Row | Rejected]:
    """Rows of one Parquet file: an image column (struct{bytes, path} or binary) and a caption, or text alone."""
    try:
        with pq.ParquetFile(file, arrow_extensions_enabled=False) as table:
            schema = table.schema_arrow
            image = _image_column(schema)
            if not set(schema.names) & set(CAPTION_FIELDS):
                raise BadInput(
                    f"{name} has the columns {', '.join(schema.names)} and none of {', '.join(CAPTION_FIELDS)}; rename one"
                )
            wanted = [column for column in schema.names if column in (*KEY_FIELDS, *CAPTION_FIELDS, image)]
            number = 0
            for batch in table.iter_batches(batch_size=64, columns=wanted):
                for values in batch.to_pylist():
                    yield _table_row(values, image, f"{name} row {number}", f"{name}#{number}")
                    number += 1
    except (OSError, pa.ArrowException) as error:
        raise BadInput(f"{name} is not a readable Parquet file ({' '.join(str(error).split())}); fetch it again") from None


def read_jsonl(file: IO[bytes], name: str, source: str) -> Iterator[Row | Rejected]:
    """Rows of one JSONL file: objects with `text` or `content`, UTF-8, blank lines skipped."""
    try:
        for number, line in enumerate(_lines(file), start=1):
            position = f"{name} line {number}"
            if line is None:
                yield Rejected(source, position, "line over 64 MiB")
            elif line.strip():
                yield _json_row(line, position, f"{name}#{number}", source)
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"{name} cannot be read to its end ({error}); fetch it again") from None


def _image_column(schema: pa.Schema) -> str | None:
    for column in IMAGE_COLUMNS:
        if column in schema.names:
            kind = schema.field(column).type
            has_bytes = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
            if has_bytes or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
                return column
    return None


def _table_row(values: dict[str, Any], image_column: str | None, position: str, name: str) -> Row:
    image = values.get(image_column) if image_column else None
    if isinstance(image, dict):
        # The library `datasets` leaves the bytes out where it stores only a path on somebody's machine.
        image = image["bytes"]
    text = first_text(values, CAPTION_FIELDS)
    return Row(position=position, key=_key(values, name), text=text, image=image, wants_image=image_column is not None)


def _json_row(line: bytes, position: str, name: str, source: str) -> Row | Rejected:
    try:
        values = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return Rejected(source, position, "invalid UTF-8")
    except (ValueError, RecursionError):
        return Rejected(source, position, "broken JSON")
    if not isinstance(values, dict):
        return Rejected(source, position, "line is no JSON object")
    return Row(position=position, key=_key(values, name), text=first_text(values, TEXT_FIELDS), image=None, wants_image=False)


def _key(values: dict[str, Any], otherwise: str) -> str:
    found = (values[field] for field in KEY_FIELDS if isinstance(values.get(field), (str, int)))
    return str(next(found, otherwise))


def _lines(file: IO[bytes]) -> Iterator[bytes | None]:
    """Lines of the file; None for one that is too long to hold."""
    while line := file.readline(MAX_LINE_BYTES):
        too_long = len(line) == MAX_LINE_BYTES and not line.endswith(b"\n")
        rest = line
        while too_long and rest and not rest.endswith(b"\n"):
            rest = file.readline(MAX_LINE_BYTES)
        yield None if too_long else line
