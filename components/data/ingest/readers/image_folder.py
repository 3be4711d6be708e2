"""Folders of pictures whose captions lie beside them: name.jpg and name.txt are a record, folders within included."""

from __future__ import annotations

import itertools
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any, NamedTuple

from components.data.config import CorpusConfig
from components.data.ingest.readers.corpus_files import Reading
from components.data.ingest.readers.locating import ANY_STORAGE_ERROR, locate_folders, not_listed
from components.data.ingest.readers.pairing import BESIDE, Group, Part, captions_of, grouped, part_of, pictures_of, why_several
from components.data.ingest.readers.passed_over import PassedOver, another_ending, name_of
from components.data.ingest.readers.records import FileReference, Record, pair_record, printable
from components.data.ingest.readers.walking import Walk
from components.data.ingest.rejected import Rejected

TABLE = 'CREATE TABLE files (folder INTEGER, "outer" BLOB, key BLOB, ending TEXT, path BLOB)'


class _Folder(NamedTuple):
    """One folder of pictures."""

    system: Any
    path: str
    name: str
    """Tells it from the corpus's other folders, "" where it is the only one."""
    source: str
    listed: frozenset[str]
    """Endings of formats that are read."""
    passed_over: PassedOver


def read_image_folder(corpus: CorpusConfig, reading: Reading, listed_pictures: frozenset[str]) -> Iterator[Record | Rejected]:
    """The records of every folder that corpus.path names, in the order of their names; a key is the path inside it."""
    system, found = locate_folders(corpus, reading.passed_over)
    folders = [_Folder(system, *item, corpus.name, listed_pictures, reading.passed_over) for item in found.items()]
    # Listing a million files takes as many strings; the temporary database sorts them on disk.
    with closing(sqlite3.connect("", isolation_level=None)) as database:
        database.execute(TABLE)
        database.execute("BEGIN")
        try:
            database.executemany("INSERT INTO files VALUES (?, ?, ?, ?, ?)", _files(Walk(system, reading.passed_over), folders))
        except ANY_STORAGE_ERROR as error:
            raise not_listed(corpus.name, corpus.path, error) from None
        reading.total_records = database.execute("SELECT count(*) FROM (SELECT DISTINCT folder, key FROM files)").fetchone()[0]
        ordered = database.execute('SELECT folder, "outer", key, ending, path FROM files ORDER BY folder, "outer", key, path')
        for (number, _), files in itertools.groupby(ordered, key=lambda file: file[:2]):
            yield from _records(folders[number], [_part(*file[1:]) for file in files])


def _files(walk: Walk, folders: Iterable[_Folder]) -> Iterator[tuple[int, bytes, bytes, str, bytes]]:
    """(number of the folder, outer key, key, ending, path) of every picture and caption in them."""
    for number, folder in enumerate(folders):
        for path in walk.files(folder.path):
            part = part_of(path[len(folder.path) :].lstrip("/"), path)
            if part:
                # File names need not be UTF-8, which SQLite's text must be.
                yield number, os.fsencode(part.outer), os.fsencode(part.key), part.ending, os.fsencode(path)
            else:
                folder.passed_over.add(another_ending(path), path)


def _part(outer: bytes, key: bytes, ending: str, path: bytes) -> Part:
    return Part(os.fsdecode(outer), os.fsdecode(key), ending, os.fsdecode(path))


def _records(folder: _Folder, parts: list[Part]) -> Iterator[Record | Rejected]:
    groups, beside = grouped(parts, outer_is_whole=False)
    for part in beside:
        folder.passed_over.add(BESIDE, part.value)
    for group in groups:
        yield _record(folder, group)


def _record(folder: _Folder, group: Group) -> Record | Rejected:
    position = f"{name_of(folder.path)}/{group.key}"
    pictures, others = pictures_of(group, folder.listed)
    captions = captions_of(group)
    if len(pictures) > 1 or len(captions) > 1:
        return Rejected(folder.source, position, why_several(group))
    for part in others:
        folder.passed_over.add(BESIDE, part.value)
    caption, image = (
        FileReference(folder.system, found[0].value, what) if found else None
        for found, what in ((captions, "caption"), (pictures, "image"))
    )
    return pair_record(position, printable(f"{folder.name}/{group.key}" if folder.name else group.key), caption, image)
