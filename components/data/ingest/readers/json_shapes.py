"""The shape of a JSON file: lines and an array of objects are read; one object around all rows is refused with the way out."""

from __future__ import annotations

import itertools
import json
import re
import shlex
from collections.abc import Collection, Iterable
from typing import Any

from components.data.ingest.readers.caption_columns import says_text
from components.data.ingest.readers.records import CAPTION_FIELDS
from core.errors import BadInput

# Of a file's beginning, to tell an array of objects from lines, and to find the list that an object begins with.
START_BYTES = 4096
FIRST_LIST = re.compile(rb'"((?:[^"\\]|\\.){1,200})"\s*:\s*\[')


def is_array(start: bytes) -> bool:
    """Whether a file that begins so is one array of objects: a bracket, and then the first object or the end of the line."""
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    return text[:1] == b"[" and (text[1:].lstrip()[:1] in (b"{", b"") or text[1:].lstrip(b" \t")[:1] in (b"\r", b"\n"))


def refuse_one_value(name: str, start: bytes, lines: Iterable[bytes | None], own: Collection[str]) -> None:
    """BadInput where the file is no lines but one object, or one list, with all rows in it: it would pass for a single row.

    start: START_BYTES of the file. lines: those of the file, None for one that is too long to hold. own: fields of the
    format whose lists belong to one row.
    """
    found = list(itertools.islice((line for line in lines if line is None or line.strip()), 2))
    if not found:
        return
    first, *others = found
    if first is None:
        is_open = start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{"
    else:
        is_open = bool(others) and _goes_on(first) and not isinstance(_parsed(others[0]), dict)
    if is_open:
        section = FIRST_LIST.search(start)
        raise _wrapped(name, "is one object over many lines", section[1].decode(errors="replace") if section else "")
    if first is not None and not others:
        _refuse_only_line(name, _parsed(first), own)


def _refuse_only_line(name: str, value: object, own: Collection[str]) -> None:
    if isinstance(value, list) and value:
        raise BadInput(f'{name} is one list of values that are no objects; write one object a line, {{"text": ...}}')
    if not isinstance(value, dict) or not set(own).isdisjoint(value):
        return
    inner = {field: entry for field, entry in value.items() if isinstance(entry, (list, dict)) and entry}
    texts = [value[field] for field in CAPTION_FIELDS if field in value]
    if any(isinstance(text, str) for text in texts) or (len(inner) < len(value) and any(map(_are_strings, texts))):
        return
    rows = [field for field, entry in inner.items() if isinstance(entry, list) and isinstance(entry[0], (dict, list))]
    if not rows and not any(map(says_text, value)):
        rows = [field for field, entry in inner.items() if isinstance(entry, list)]
    if rows:
        raise _wrapped(name, "is one object", rows[0])
    if inner and len(inner) == len(value):
        as_lines = 'pandas writes it by to_json(path, orient="records", lines=True)'
        raise BadInput(f"{name} is one object with all rows in its fields {_shown(value)}; write an object a line ({as_lines})")


def _wrapped(name: str, what: str, section: str) -> BadInput:
    """section: the field with the rows, "" where it is not known."""
    holds = f", which holds its rows in the list {section!r}" if section else ""
    command = f"jq -c {shlex.quote(f'.[{json.dumps(section)}][]') if section else '.'} {shlex.quote(name)}"
    return BadInput(f"{name} {what}{holds}; write one object a line ({command} > rows.jsonl)")


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


def _parsed(line: bytes | None) -> object:
    try:
        return json.loads((line or b"").decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None


def _are_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


def _shown(value: dict[str, Any]) -> str:
    return ", ".join(list(value)[:5]) + (", ..." if len(value) > 5 else "")
