"""JSONL corpora: one object a line, and a line that is none is one bad row. A file that is one array of objects is read too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO

from components.data.intake.rejected import Rejected
from components.data.readers.corpus_files import CorpusFile
from components.data.readers.json_sections import json_entries
from components.data.readers.line_pictures import line_rows
from components.data.readers.rows import Line, Row, key_of
from components.data.readers.unpacking import UNREADABLE, as_utf8
from components.runtime.failure import BadInput

SUFFIXES = (".jsonl", ".ndjson")
MAX_LINE_BYTES = 64 * 2**20
# Of a file's beginning, to tell an array of objects from lines.
START_BYTES = 4096
BLANK_LINE = "blank lines"


def read_jsonl(file: CorpusFile) -> Iterator[Row | Rejected]:
    """Rows of one JSONL file: objects with `text` or `content`, UTF-8, blank lines skipped; see `line_rows` for pictures."""
    return line_rows(file, json_lines(file))


def json_lines(file: CorpusFile) -> Iterator[Line | Rejected]:
    """The objects of one JSONL file; BadInput where its bytes end too early."""
    try:
        content = as_utf8(file.bytes)
        start = content.read(START_BYTES)
        content.seek(0)
        yield from _entries(content, file) if _is_array(start) else _objects(content, file)
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


def _is_array(start: bytes) -> bool:
    """Whether a file that begins so is one array of objects: a bracket, and then the first object or the end of the line."""
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    return text[:1] == b"[" and (text[1:].lstrip()[:1] in (b"{", b"") or text[1:].lstrip(b" \t\r")[:1] == b"\n")


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
    while line := file.readline(MAX_LINE_BYTES):
        too_long = len(line) == MAX_LINE_BYTES and not line.endswith(b"\n")
        rest = line
        while too_long and rest and not rest.endswith(b"\n"):
            rest = file.readline(MAX_LINE_BYTES)
        yield None if too_long else line
