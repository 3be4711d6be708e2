"""Rows of JSON lines: text alone, or pictures with captions where the first lines show a field that has them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from components.data.intake.rejected import Rejected
from components.data.readers.caption_columns import are_captions, caption_columns
from components.data.readers.corpus_files import CorpusFile
from components.data.readers.picture_columns import NUM_FIRST_VALUES, Column, Watch, picture_column
from components.data.readers.rows import CAPTION_FIELDS, KEY_FIELDS, TEXT_FIELDS, Line, Row, first_text, pair_row, text_row

# Characters of text that the first lines hold at most, so that long ones are not all held.
MAX_FIRST_CHARACTERS = 2**24


def line_rows(file: CorpusFile, lines: Iterable[Line | Rejected]) -> Iterator[Row | Rejected]:
    """A row for each line; BadInput where the lines have pictures in a form that is not read."""
    lines = iter(lines)
    first = list(_first(lines))
    names = list(dict.fromkeys(name for line in first if not isinstance(line, Rejected) for name in line.values))
    texts = [name for name in CAPTION_FIELDS if name in names] or list(TEXT_FIELDS)
    of_captions = are_captions(texts, names)
    columns = _columns(first) if file.takes_images else []
    pictures = picture_column(file, columns, of_captions=of_captions)
    if pictures is not None and not any(name in CAPTION_FIELDS for name in names):
        texts = caption_columns(file, {name: _is_text(first, name) for name in names})
    watch = Watch(file, of_captions=of_captions)
    for line in itertools.chain(first, lines):
        if isinstance(line, Rejected):
            yield line
            continue
        has_picture = pictures is not None and bool(line.values.get(pictures.name))
        notes = watch.notes(
            {name: value for name, value in _others(line) if not pictures or name != pictures.name}, has_own=has_picture
        )
        if pictures is not None and has_picture:
            text = first_text(line.values, texts)
            yield pair_row(line.position, line.key, text, pictures.read(line.values), notes)
        else:
            yield text_row(line.position, line.key, first_text(line.values, (*TEXT_FIELDS, *texts)), notes)


def _first(lines: Iterator[Line | Rejected]) -> Iterator[Line | Rejected]:
    num_characters = 0
    for line in itertools.islice(lines, NUM_FIRST_VALUES):
        yield line
        if not isinstance(line, Rejected):
            num_characters += sum(len(value) for value in line.values.values() if isinstance(value, str))
        if num_characters >= MAX_FIRST_CHARACTERS:
            break


def _is_text(lines: Iterable[Line | Rejected], name: str) -> bool:
    found = [line.values.get(name) for line in lines if not isinstance(line, Rejected)]
    return any(
        isinstance(value, str) or (isinstance(value, list) and all(isinstance(one, str) for one in value) and bool(value))
        for value in found
    )


def _columns(lines: Iterable[Line | Rejected]) -> list[Column]:
    values: dict[str, list[Any]] = {}
    for line in lines:
        for name, value in _others(line) if not isinstance(line, Rejected) else ():
            if value is not None:
                values.setdefault(name, []).append(value)
    return [Column(name, found) for name, found in values.items()]


def _others(line: Line) -> list[tuple[str, Any]]:
    """The fields that are neither text nor key."""
    return [(name, value) for name, value in line.values.items() if name not in (*KEY_FIELDS, *CAPTION_FIELDS)]
