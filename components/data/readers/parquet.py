"""How is a Parquet corpus read? One row a document, columns found by the names that are in common use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.data.intake.rejected import Rejected
from components.data.readers.corpus_files import CorpusFile
from components.data.readers.rows import CAPTION_FIELDS, KEY_FIELDS, Row, first_text, key_of, pair_row, text_row
from components.runtime.failure import BadInput

SUFFIXES = (".parquet",)
IMAGE_COLUMNS = ("image", "img", "jpg", "png", "image_bytes")
# A file may be one row group: from a disk its pages are read as they are needed, or its whole column of images would be
# held at once. Over a network many small reads in two places would cost more than that memory.
LOCAL_BUFFER_BYTES = 2**20


def read_parquet(file: CorpusFile) -> Iterator[Row | Rejected]:
    """Rows of one Parquet file: an image column (struct{bytes, path} or binary) and captions, or text alone."""
    with open_table(file) as table:
        schema = table.schema_arrow
        image = _image_column(schema)
        require_columns(file, schema, CAPTION_FIELDS)
        wanted = [name for name in schema.names if name in (*KEY_FIELDS, *CAPTION_FIELDS) or name == image]
        for number, values in enumerate(table_rows(file, table, wanted, batch_size=64)):
            position, key = f"{file.name} row {number}", key_of(values, f"{file.name}#{number}")
            text = first_text(values, CAPTION_FIELDS)
            if image is None:
                yield text_row(position, key, text)
            else:
                yield pair_row(position, key, text, image_bytes(values[image]))


@contextmanager
def open_table(file: CorpusFile) -> Iterator[pq.ParquetFile]:
    """The Parquet file, closed at the end; whatever Arrow finds broken in it is a BadInput."""
    reading = {"buffer_size": LOCAL_BUFFER_BYTES, "pre_buffer": False} if file.is_local else {"pre_buffer": True}
    try:
        # Extension types can name Python classes, which a corpus has no business with.
        with pq.ParquetFile(file.bytes, arrow_extensions_enabled=False, **reading) as table:
            yield table
    except (OSError, pa.ArrowException) as error:
        said = " ".join(str(error).split())
        raise BadInput(f"{file.name} is not a readable Parquet file ({said}); fetch it again") from None


def require_columns(file: CorpusFile, schema: pa.Schema, any_of: Sequence[str]) -> None:
    """BadInput unless one of these columns is there, and no name twice."""
    if not set(schema.names) & set(any_of):
        raise BadInput(f"{file.name} has the columns {', '.join(schema.names)} and none of {', '.join(any_of)}; rename one")
    if len(set(schema.names)) < len(schema.names):
        raise BadInput(f"{file.name} has two columns of one name among {', '.join(schema.names)}; rename one")


def table_rows(file: CorpusFile, table: pq.ParquetFile, columns: Sequence[str], batch_size: int) -> Iterator[dict[str, Any]]:
    """Rows as dictionaries, strings as bytes: Parquet does not check that they are UTF-8, and one that is not is a bad row."""
    num_read, num_rows = 0, table.metadata.num_rows
    # So few rows at a time are decoded as fast by one thread, and every other one keeps memory of its own.
    for batch in table.iter_batches(batch_size=batch_size, columns=list(columns), use_threads=False):
        num_read += len(batch)
        file.reading.in_file = min(1.0, num_read / max(num_rows, 1))
        arrays = [_strings_as_bytes(column) for column in batch.columns]
        yield from pa.RecordBatch.from_arrays(arrays, batch.schema.names).to_pylist()
    if num_read != num_rows:
        # Arrow believes the pages; what the footer says of them is not checked by anyone else.
        raise pa.ArrowInvalid(f"its footer says {num_rows} rows and its pages hold {num_read}")


def image_bytes(value: Any) -> bytes | None:
    """The bytes of struct{bytes, path} or of a binary; None where only a path on somebody's machine is stored."""
    return value["bytes"] if isinstance(value, dict) else value


def _image_column(schema: pa.Schema) -> str | None:
    return next((name for name in IMAGE_COLUMNS if name in schema.names and holds_bytes(schema.field(name).type)), None)


def holds_bytes(kind: pa.DataType) -> bool:
    """Whether values of this type are encoded images: struct{bytes, ...} or binary."""
    has_bytes = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    return has_bytes or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _strings_as_bytes(column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        return _strings_as_bytes(column.dictionary_decode())
    wanted = _with_bytes(column.type)
    return column if wanted == column.type else column.cast(wanted)


def _with_bytes(kind: pa.DataType) -> pa.DataType:
    """The same type with binary for every string in it."""
    if pa.types.is_string(kind):
        return pa.binary()
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.large_binary()
    if pa.types.is_list(kind):
        return pa.list_(_with_bytes(kind.value_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(_with_bytes(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_with_bytes(field.type)) for field in kind])
    return kind
