"""How is a folder of images read whose captions lie beside them? name.jpg and name.txt are a row, folders within included."""

from __future__ import annotations

import itertools
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from components.data.config import CorpusConfig
from components.data.intake.rejected import Rejected
from components.data.readers.corpus_files import Reading, is_local, locate_folders, name_of
from components.data.readers.rows import FileReference, Row, pair_row

IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp")
TEXT_ENDINGS = ("txt",)


def read_image_folder(corpus: CorpusConfig, reading: Reading) -> Iterator[Row | Rejected]:
    """The rows of every folder that corpus.path names, in the order of their names; a key is the path inside it."""
    system, folders = locate_folders(corpus)
    # Listing a million files takes as many strings; the temporary database sorts them on disk.
    with closing(sqlite3.connect("", isolation_level=None)) as database:
        database.execute("CREATE TABLE files (folder INTEGER, key BLOB, ending TEXT, path BLOB)")
        database.execute("BEGIN")
        for number, folder in enumerate(folders):
            database.executemany("INSERT INTO files VALUES (?, ?, ?, ?)", _files(system, number, folder))
        reading.total_rows = database.execute("SELECT count(*) FROM (SELECT DISTINCT folder, key FROM files)").fetchone()[0]
        ordered = database.execute("SELECT folder, key, ending, path FROM files ORDER BY folder, key, path")
        for (number, key), files in itertools.groupby(ordered, key=lambda file: file[:2]):
            found = [(ending, os.fsdecode(path)) for _, _, ending, path in files]
            yield _row(system, corpus.name, folders[number], os.fsdecode(key), found, several=len(folders) > 1)


def _files(system: Any, number: int, folder: str) -> Iterator[tuple[int, bytes, str, bytes]]:
    """(number, key, ending, path) of every image and caption below `folder`; what begins with a dot is the system's own."""
    for path in _walk(folder) if is_local(system) else map(str, system.find(folder)):
        stem, _, ending = path[len(folder) :].lstrip("/").rpartition(".")
        name = stem.rpartition("/")[2]
        if ending.lower() in (*IMAGE_ENDINGS, *TEXT_ENDINGS) and name and not name.startswith("."):
            # File names need not be UTF-8, which SQLite's text must be.
            yield number, os.fsencode(stem), ending.lower(), os.fsencode(path)


def _walk(folder: str) -> Iterator[str]:
    """Paths of all files below a local folder, one directory entry in memory at a time; links to folders are not followed."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path)
            elif entry.is_file():
                yield entry.path


def _row(system: Any, source: str, folder: str, key: str, files: list[tuple[str, str]], *, several: bool) -> Row | Rejected:
    position = f"{name_of(folder)}/{key}"
    images = [FileReference(system, path, "image") for ending, path in files if ending in IMAGE_ENDINGS]
    captions = [FileReference(system, path, "caption") for ending, path in files if ending in TEXT_ENDINGS]
    if len(images) > 1 or len(captions) > 1:
        return Rejected(source, position, "several files of one kind under one key")
    # Folders that a glob names may hold the same names.
    unique = f"{folder.rpartition('/')[2]}/{key}" if several else key
    return pair_row(position, unique, captions[0] if captions else None, images[0] if images else None)
