"""Records of JSON lines: text alone, or pictures with captions where the first lines show a field that has them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from components.data.ingest.readers.captions import are_captions, caption_columns, pictured_texts, spare_texts, spells_list
from components.data.ingest.readers.corpus_files import CorpusFile
from components.data.ingest.readers.picture_columns import (
    NO_PICTURE,
    NUM_FIRST_VALUES,
    Column,
    PictureColumn,
    Watch,
    check_files_agree,
    picture_column,
)
from components.data.ingest.readers.picture_signs import says_picture
from components.data.ingest.readers.records import (
    CAPTION_FIELDS,
    KEY_FIELDS,
    TEXT_FIELDS,
    Line,
    Record,
    first_text,
    pair_record,
    text_record,
)
from components.data.ingest.rejected import Rejected

# Characters of text that the first lines hold at most, so that long ones are not all held.
MAX_FIRST_CHARACTERS = 2**24


class _Fields(NamedTuple):
    """Which fields of the lines are read as what, as the first lines show it."""

    usual: list[str]
    """Fields that are called as texts are and hold no pictures."""
    captions: list[str]
    """Where a line with a picture has its text, the best first."""
    texts: list[str]
    """Where a line without one has its text, the best first."""
    pictures: PictureColumn | None
    of_captions: bool
    """The texts are said of pictures."""


def line_records(file: CorpusFile, lines: Iterable[Line | Rejected]) -> Iterator[Record | Rejected]:
    """A record for each line; BadInput where the lines have pictures in a form that is not read."""
    lines = iter(lines)
    first = list(_first(lines))
    fields = _fields(file, first)
    watch = Watch(file, of_captions=fields.of_captions)
    # Made once, as every line looks through one of the two.
    spare = [list(dict.fromkeys((*wanted, *fields.usual))) for wanted in (fields.texts, fields.captions)]
    for line in itertools.chain(first, lines):
        yield line if isinstance(line, Rejected) else _record(line, fields, spare, watch)


def _record(line: Line, fields: _Fields, spare: Sequence[Sequence[str]], watch: Watch) -> Record:
    """spare: fields that may hold a text, of a line without a picture and of one with a picture."""
    pictures = fields.pictures
    has_picture = pictures is not None and bool(line.values.get(pictures.name))
    text = first_text(line.values, fields.captions if has_picture else fields.texts)
    unread = {name: value for name, value in line.values.items() if _is_unread(name, fields.usual, pictures)}
    notes = watch.notes({**unread, **spare_texts(line.values, spare[has_picture])}, has_own=has_picture)
    if pictures is not None and has_picture:
        return pair_record(line.position, line.key, text, pictures.read(line.values), notes)
    if fields.of_captions and (isinstance(text, list) or spells_list(text)):
        return pair_record(line.position, line.key, text, [], notes)
    return text_record(line.position, line.key, text, (*notes, *([NO_PICTURE] if pictures is not None else [])))


def _fields(file: CorpusFile, first: Sequence[Line | Rejected]) -> _Fields:
    """BadInput where the file has pictures in a form that is not read, or has some where an earlier one has none."""
    names = list(dict.fromkeys(name for line in first if not isinstance(line, Rejected) for name in line.values))
    columns = _columns(first) if file.takes_images else []
    pictured = pictured_texts([name for name in CAPTION_FIELDS if name in names], columns)
    usual = [name for name in CAPTION_FIELDS if name not in pictured]
    texts = [name for name in usual if name in names] or list(TEXT_FIELDS)
    of_captions = are_captions(texts, names)
    pictures = _pictures(file, columns, usual, of_captions=of_captions)
    # A field for pictures that is empty so far may have some further on.
    if names and (pictures is not None or not any(map(says_picture, names))):
        check_files_agree(file, has_pictures=pictures is not None)
    if pictures is not None and not any(name in usual for name in names):
        names = [name for name in names if name not in pictured]
        texts = caption_columns(file, {name: _is_text(first, name) for name in names})
    text_alone = [name for name in (*TEXT_FIELDS, *texts) if name not in pictured]
    return _Fields(usual, texts, text_alone, pictures, of_captions)


def _pictures(file: CorpusFile, columns: Sequence[Column], usual: Sequence[str], *, of_captions: bool) -> PictureColumn | None:
    """The field that has the pictures; where there is none, a key may be the name of a file, or the link to it."""
    others = [column for column in columns if column.name not in (*KEY_FIELDS, *usual)]
    keys = [column for column in columns if column.name in KEY_FIELDS]
    found = picture_column(file, others, of_captions=of_captions)
    return found or picture_column(file, keys, of_captions=of_captions)


def _is_unread(name: str, usual: Sequence[str], pictures: PictureColumn | None) -> bool:
    if pictures is not None and (name == pictures.name or name in KEY_FIELDS):
        return False
    return name not in usual


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
        for name, value in line.values.items() if not isinstance(line, Rejected) else ():
            if value is not None:
                values.setdefault(name, []).append(value)
    return [Column(name, found) for name, found in values.items()]
