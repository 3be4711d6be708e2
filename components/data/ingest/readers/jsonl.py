"""JSONL corpora: one object a line, and a line that is none is one bad record. A file that is one array of objects is read too.

Lines end as on any system: with a line feed, with a carriage return before it, or with a carriage return alone, which
cannot stand inside a JSON string. One object around all records is refused with the way out.
"""

from __future__ import annotations

import itertools
import json
import re
import shlex
from collections.abc import Collection, Iterable, Iterator
from typing import IO, Any

from components.data.ingest.readers.captions import says_text
from components.data.ingest.readers.corpus_files import CorpusFile
from components.data.ingest.readers.json_sections import json_entries
from components.data.ingest.readers.line_pictures import line_records
from components.data.ingest.readers.records import CAPTION_FIELDS, DOUBLED_KEY, Line, Record, key_of
from components.data.ingest.readers.unpacking import UNREADABLE, as_utf8
from components.data.ingest.rejected import Rejected
from core.errors import BadInput
from core.text import DoubledKey, each_key_once

SUFFIXES = (".jsonl", ".ndjson")
MAX_LINE_BYTES = 64 * 2**20
# Returns before a line feed belong to it, and the last one of a block may do so.
RETURN = re.compile(rb"\r(?!\r*(?:\n|\Z))")
BLANK_LINE = "blank lines"
# Of a file's beginning, to tell an array of objects from lines, and to find the list that an object begins with.
START_BYTES = 4096
FIRST_LIST = re.compile(rb'"((?:[^"\\]|\\.){1,200})"\s*:\s*\[')


def read_jsonl(file: CorpusFile) -> Iterator[Record | Rejected]:
    """Records of one JSONL file: objects with `text` or `content`, in UTF-8; `line_records` tells which have pictures."""
    return line_records(file, json_lines(file))


def json_lines(file: CorpusFile, own: Collection[str] = ()) -> Iterator[Line | Rejected]:
    """The objects of one JSONL file; BadInput where its bytes end too early, or one object holds all records.

    own: fields of the format whose lists belong to one record.
    """
    try:
        content = as_utf8(file.bytes)
        start = content.read(START_BYTES)
        content.seek(0)
        if _is_array(start):
            yield from _entries(content, file)
            return
        _refuse_one_value(file.name, start, _lines(content), own)
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
        values = json.loads(line.decode("utf-8-sig"), object_pairs_hook=each_key_once)
    except UnicodeDecodeError:
        return Rejected(source, position, "invalid UTF-8")
    except DoubledKey:
        return Rejected(source, position, DOUBLED_KEY)
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


def _is_array(start: bytes) -> bool:
    """Whether a file that begins so is one array of objects: a bracket, and then the first object or the end of the line."""
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    return text[:1] == b"[" and (text[1:].lstrip()[:1] in (b"{", b"") or text[1:].lstrip(b" \t")[:1] in (b"\r", b"\n"))


def _refuse_one_value(name: str, start: bytes, lines: Iterable[bytes | None], own: Collection[str]) -> None:
    """BadInput where the file is no lines but one object, or one list, around all records: it would pass for one record.

    start: START_BYTES of the file. lines: those of the file, None for one that is too long to hold. own: fields of the
    format whose lists belong to one record.
    """
    found = list(itertools.islice((line for line in lines if line is None or line.strip()), 2))
    if not found:
        return
    first, *others = found
    if first is None:
        is_open = start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{"
    else:
        is_open = bool(others) and _goes_on(first) and not isinstance(_value_of(others[0]), dict)
    if is_open:
        section = FIRST_LIST.search(start)
        raise _wrapped(name, "is one object over many lines", section[1].decode(errors="replace") if section else "")
    if first is not None and not others:
        _refuse_only_line(name, _value_of(first), own)


def _refuse_only_line(name: str, value: object, own: Collection[str]) -> None:
    if isinstance(value, list) and value:
        raise BadInput(f'{name} is one list of values that are no objects; write one object a line, {{"text": ...}}')
    if not isinstance(value, dict) or not set(own).isdisjoint(value):
        return
    inner = {field: entry for field, entry in value.items() if isinstance(entry, (list, dict)) and entry}
    texts = [value[field] for field in CAPTION_FIELDS if field in value]
    if any(isinstance(text, str) for text in texts) or (len(inner) < len(value) and any(map(_are_strings, texts))):
        return
    records = [field for field, entry in inner.items() if isinstance(entry, list) and isinstance(entry[0], (dict, list))]
    if not records and not any(map(says_text, value)):
        records = [field for field, entry in inner.items() if isinstance(entry, list)]
    if records:
        raise _wrapped(name, "is one object", records[0])
    if inner and len(inner) == len(value):
        as_lines = 'pandas writes it by to_json(path, orient="records", lines=True)'
        raise BadInput(
            f"{name} is one object with all records in its fields {_first_fields(value)}; write an object a line ({as_lines})"
        )


def _wrapped(name: str, what: str, section: str) -> BadInput:
    """section: the field with the records, "" where it is not known."""
    holds = f", which holds its records in the list {section!r}" if section else ""
    command = f"jq -c {shlex.quote(f'.[{json.dumps(section)}][]') if section else '.'} {shlex.quote(name)}"
    return BadInput(f"{name} {what}{holds}; write one object a line ({command} > records.jsonl)")


def _goes_on(line: bytes) -> bool:
    """Whether the line begins an object that it does not end, and breaks off between two values."""
    text = line.decode("utf-8-sig", errors="replace").strip()
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return text[:1] == "{" and error.pos >= len(text)
    except RecursionError:
        pass
    return False


def _value_of(line: bytes | None) -> object:
    try:
        return json.loads((line or b"").decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None


def _are_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


def _first_fields(value: dict[str, Any]) -> str:
    return ", ".join(list(value)[:5]) + (", ..." if len(value) > 5 else "")
