"""How is a JSONL corpus read? One object a line; a line that is none is one bad row."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import IO

from components.data.intake.rejected import Rejected
from components.data.readers.corpus_files import CorpusFile
from components.data.readers.line_pictures import line_rows
from components.data.readers.rows import Line, Row, key_of
from components.runtime.failure import BadInput

SUFFIXES = (".jsonl", ".jsonl.gz")
MAX_LINE_BYTES = 64 * 2**20


def read_jsonl(file: CorpusFile) -> Iterator[Row | Rejected]:
    """Rows of one JSONL file: objects with `text` or `content`, UTF-8, blank lines skipped; see `line_rows` for pictures."""
    return line_rows(file, json_lines(file))


def json_lines(file: CorpusFile) -> Iterator[Line | Rejected]:
    """The objects of one JSONL file; BadInput where its bytes end too early."""
    try:
        for number, line in enumerate(_lines(file.bytes), start=1):
            position = f"{file.name} line {number}"
            if line is None:
                yield Rejected(file.source, position, "line over 64 MiB")
            elif line.strip():
                yield _parse(line, position, f"{file.name}#{number}", file.source)
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"{file.name} cannot be read to its end ({error}); fetch it again") from None


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
