"""JSONL corpora: one object a line, and a line that is none is one bad row. A file that is one array of objects is read too.

Lines end as on any system: with a line feed, with a carriage return before it, or with a carriage return alone, which
cannot stand inside a JSON string.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from typing import IO

from components.data.ingest.readers.corpus_files import CorpusFile
from components.data.ingest.readers.json_sections import json_entries
from components.data.ingest.readers.json_shapes import START_BYTES, is_array, refuse_one_value
from components.data.ingest.readers.line_pictures import line_rows
from components.data.ingest.readers.records import Line, Row, key_of
from components.data.ingest.readers.unpacking import UNREADABLE, as_utf8
from components.data.ingest.rejected import Rejected
from core.errors import BadInput

SUFFIXES = (".jsonl", ".ndjson")
MAX_LINE_BYTES = 64 * 2**20
# Returns before a line feed belong to it, and the last one of a block may do so.
RETURN = re.compile(rb"\r(?!\r*(?:\n|\Z))")
BLANK_LINE = "blank lines"


def read_jsonl(file: CorpusFile) -> Iterator[Row | Rejected]:
    """Rows of one JSONL file: objects with `text` or `content`, UTF-8, blank lines skipped; see `line_rows` for pictures."""
    return line_rows(file, json_lines(file))


def json_lines(file: CorpusFile, own: Collection[str] = ()) -> Iterator[Line | Rejected]:
    """The objects of one JSONL file; BadInput where its bytes end too early, or one object holds all rows.

    own: fields of the format whose lists belong to one row.
    """
    try:
        content = as_utf8(file.bytes)
        start = content.read(START_BYTES)
        content.seek(0)
        if is_array(start):
            yield from _entries(content, file)
            return
        refuse_one_value(file.name, start, _lines(content), own)
        content.seek(0)
        yield from _objects(content, file)
    except UNREADABLE as error:
        raise BadInput(f"{file.name} cannot be read to its end ({error}); fetch it again") from None


def _objects(content: IO[bytes], file: CorpusFile) -> Iterator[Line | Rejected]:
    for number, line in enumerate(_lines(content), start=1):
        position = f"{file.name} line {number}"
        if line is None:
            yield Rejected(file.source, position, "line over 64 MiB")
        elif line.strip():
            yield _parse(line, position, f"{file.name}#{number}", file.source)
        else:
            file.reading.passed_over.add(BLANK_LINE, position)


def _entries(content: IO[bytes], file: CorpusFile) -> Iterator[Line | Rejected]:
    for number, entry in enumerate(json_entries(content, file.name), start=1):
        position = f"{file.name} entry {number}"
        if isinstance(entry, dict):
            yield Line(entry, position, key_of(entry, f"{file.name}#{number}"))
        else:
            yield Rejected(file.source, position, "entry is no JSON object")


def _parse(line: bytes, position: str, key: str, source: str) -> Line | Rejected:
    try:
        values = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return Rejected(source, position, "invalid UTF-8")
    except (ValueError, RecursionError):
        return Rejected(source, position, "broken JSON")
    if not isinstance(values, dict):
        return Rejected(source, position, "line is no JSON object")
    return Line(values, position, key_of(values, key))


def _lines(file: IO[bytes]) -> Iterator[bytes | None]:
    """Lines of the file; None for one that is too long to hold."""
    held, is_too_long = b"", False
    while block := file.readline(MAX_LINE_BYTES):
        parts = RETURN.split(block) if b"\r" in block else [block]
        if held.endswith(b"\r") and block[0] not in b"\r\n":
            # The block before ended where a line did.
            parts.insert(0, b"")
        for number, part in enumerate(parts, start=1):
            is_too_long = is_too_long or len(held) + len(part) >= MAX_LINE_BYTES
            held = b"" if is_too_long else held + part
            if number < len(parts) or part.endswith(b"\n"):
                yield None if is_too_long else held
                held, is_too_long = b"", False
    if held or is_too_long:
        yield None if is_too_long else held
