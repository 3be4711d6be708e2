"""Parquet tables: a record a document, its columns told by the names in common use, by their types and their first values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.data.ingest.readers import parquet_types as types
from components.data.ingest.readers.captions import are_captions, caption_columns, pictured_texts, spare_texts, spells_list
from components.data.ingest.readers.corpus_files import CorpusFile
from components.data.ingest.readers.picture_columns import (
    EMPTY,
    NUM_FIRST_VALUES,
    Column,
    Watch,
    check_files_agree,
    picture_column,
)
from components.data.ingest.readers.picture_signs import says_picture
from components.data.ingest.readers.records import KEY_FIELDS, Record, first_text, key_of, pair_record, text_record
from components.data.ingest.rejected import Rejected
from core.errors import BadInput

SUFFIXES = (".parquet",)
# A file may be one row group: from a disk its pages are read as they are needed, or its whole column of images would be
# held at once. Over a network many small reads in two places would cost more than that memory.
LOCAL_BUFFER_BYTES = 2**20
BATCH_ROWS = 64


def read_parquet(file: CorpusFile) -> Iterator[Record | Rejected]:
    """Records of one Parquet file: pictures (bytes, base64, or names of files; one or a list) with captions, or text alone."""
    with open_table(file) as table:
        schema = table.schema_arrow
        require_columns(file, schema, ())
        texts = _text_columns(file, table)
        of_captions = are_captions(texts, schema.names)
        keys = [name for name in KEY_FIELDS if name in schema.names]
        others = [name for name in schema.names if name not in (*texts, *keys)] if file.takes_images else []
        columns = first_values(file, table, others)
        pictures = picture_column(file, columns, of_captions=of_captions)
        if pictures is None and file.takes_images:
            # A key may be the name of a file, or the link to it.
            pictures = picture_column(file, first_values(file, table, keys), of_captions=of_captions)
            others += keys
        empty = (EMPTY,) if any(says_picture(column.name) and column.is_empty for column in columns) else ()
        if file.takes_images and table.metadata.num_rows and not empty:
            check_files_agree(file, has_pictures=pictures is not None)
        watch = Watch(file, of_captions=of_captions)
        unread = [name for name in others if _may_tell(schema.field(name))] if pictures is None else [pictures.name]
        for number, values in enumerate(table_records(file, table, list(dict.fromkeys([*keys, *texts, *unread])), BATCH_ROWS)):
            position, key = f"{file.name} record {number}", key_of(values, f"{file.name}#{number}")
            text = first_text(values, texts)
            stored = {name: types.as_stored(values[name], schema.field(name).type) for name in (*unread, *texts)}
            rest, spare = {name: stored[name] for name in unread}, spare_texts(stored, texts)
            if pictures is not None:
                yield pair_record(position, key, text, pictures.read(rest), watch.notes(spare, has_own=True))
            elif isinstance(text, list) or (of_captions and spells_list(text)):
                yield pair_record(position, key, text, [], (*empty, *watch.notes({**rest, **spare})))
            else:
                yield text_record(position, key, text, (*empty, *watch.notes({**rest, **spare})))


def _text_columns(file: CorpusFile, table: pq.ParquetFile) -> list[str]:
    """The columns to take texts from, without those that hold pictures under a text's name."""
    columns = {field.name: types.is_text(field.type) for field in table.schema_arrow}
    texts = caption_columns(file, columns)
    pictured = pictured_texts(texts, first_values(file, table, texts)) if file.takes_images else set[str]()
    if not pictured:
        return texts
    # Refuses what is no picture that could be read.
    picture_column(file, first_values(file, table, sorted(pictured)), of_captions=False)
    return caption_columns(file, {name: is_text for name, is_text in columns.items() if name not in pictured})


@contextmanager
def open_table(file: CorpusFile) -> Iterator[pq.ParquetFile]:
    """The Parquet file, closed at the end; whatever Arrow finds broken in it is a BadInput."""
    reading = {"buffer_size": LOCAL_BUFFER_BYTES, "pre_buffer": False} if file.is_local else {"pre_buffer": True}
    try:
        # Extension types can name Python classes, which a corpus has no business with.
        with pq.ParquetFile(file.bytes, arrow_extensions_enabled=False, **reading) as table:
            metadata = types.with_plain_lists(table)
            if metadata is None:
                yield table
                return
        with pq.ParquetFile(file.bytes, arrow_extensions_enabled=False, metadata=metadata, **reading) as table:
            yield table
    except (OSError, pa.ArrowException) as error:
        said = " ".join(str(error).split())
        raise BadInput(f"{file.name} is not a readable Parquet file ({said}); fetch it again") from None


def require_columns(file: CorpusFile, schema: pa.Schema, all_of: Sequence[str]) -> None:
    """BadInput unless these columns are there, and no name twice."""
    missing = [name for name in all_of if name not in schema.names]
    if missing:
        raise BadInput(f"{file.name} has the columns {', '.join(schema.names)} and none of {', '.join(missing)}; rename one")
    if len(set(schema.names)) < len(schema.names):
        raise BadInput(f"{file.name} has two columns of one name among {', '.join(schema.names)}; rename one")


def table_records(file: CorpusFile, table: pq.ParquetFile, columns: Sequence[str], batch_size: int) -> Iterator[dict[str, Any]]:
    """Records as dictionaries, strings as bytes: Parquet does not check that they are UTF-8, and a bad one costs one record."""
    num_read, num_records = 0, table.metadata.num_rows
    # So few records at a time are decoded as fast by one thread, and every other one keeps memory of its own.
    for batch in table.iter_batches(batch_size=batch_size, columns=list(columns), use_threads=False):
        num_read += len(batch)
        file.reading.in_file = min(1.0, num_read / max(num_records, 1))
        yield from _records(batch)
    if num_read != num_records:
        # Arrow believes the pages; what the footer says of them is not checked by anyone else.
        raise pa.ArrowInvalid(f"its footer says {num_records} records and its pages hold {num_read}")


def first_values(file: CorpusFile, table: pq.ParquetFile, names: Sequence[str]) -> list[Column]:
    """These columns with their first values that are not null, for what tells of pictures; numbers are not read."""
    if not names:
        return []
    schema, images = table.schema_arrow, types.hub_images(table.schema_arrow)
    # A table of its own, because the other one fetches whole columns ahead from a store.
    reading = {"buffer_size": LOCAL_BUFFER_BYTES, "pre_buffer": False, "arrow_extensions_enabled": False}
    with pq.ParquetFile(file.bytes, metadata=table.metadata, **reading) as beginning:
        return [_column(beginning, field, images) for field in map(schema.field, names)]


def _column(table: pq.ParquetFile, field: pa.Field, images: set[str]) -> Column:
    values = _first_values(table, field) if _may_tell(field) else []
    is_picture = field.name in images or (types.holds_bytes(field.type) and says_picture(field.name))
    return Column(field.name, values, is_picture, types.are_pixels(field), is_empty=_may_tell(field) and not values)


def _first_values(table: pq.ParquetFile, field: pa.Field) -> list[Any]:
    found: list[Any] = []
    for batch in table.iter_batches(batch_size=NUM_FIRST_VALUES, columns=[field.name], use_threads=False):
        values = (types.as_stored(record[field.name], field.type) for record in _records(batch))
        found += [value for value in values if value is not None]
        if len(found) >= NUM_FIRST_VALUES:
            break
    return found


def _records(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    arrays = [types.strings_as_bytes(column) for column in batch.columns]
    return pa.RecordBatch.from_arrays(arrays, batch.schema.names).to_pylist()


def _may_tell(field: pa.Field) -> bool:
    """Whether values of the column can bear a sign of a picture: text, bytes, or numbers whose name says so."""
    kind = field.type
    return types.holds_text(kind) or (says_picture(field.name) and (pa.types.is_integer(kind) or pa.types.is_null(kind)))
