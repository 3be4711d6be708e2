"""COCO's captions: one JSON file of images and annotations, streamed, and brought together by a database on disk.

Annotations stand in any order, and the file is as large as the corpus. It may hold boxes, masks and key points beside
the captions; they are passed over and counted.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from components.data.ingest.readers.corpus_files import CorpusFile
from components.data.ingest.readers.json_sections import json_sections
from components.data.ingest.readers.records import Record, pair_record
from components.data.ingest.rejected import Rejected
from core.errors import BadInput

SUFFIXES = (".json",)

TABLES = """
CREATE TABLE images (id TEXT PRIMARY KEY, number INTEGER, name TEXT);
CREATE TABLE boxed (image_id TEXT PRIMARY KEY);
CREATE TABLE captions (image_id TEXT, number INTEGER, caption TEXT);
"""
# Every image in the file's order with its captions in theirs; an image without one has a single line of nulls.
PAIRS = """
SELECT images.id, images.name, boxed.image_id IS NOT NULL, captions.caption
FROM images LEFT JOIN captions ON captions.image_id = images.id LEFT JOIN boxed ON boxed.image_id = images.id
ORDER BY images.number, captions.number
"""
ORPHANS = """
SELECT number FROM captions WHERE NOT EXISTS (SELECT 1 FROM images WHERE images.id = captions.image_id) ORDER BY number
"""
# What annotations hold that are no captions: of instances, key points, stuff, panoptic segments.
OTHER_ANNOTATIONS = frozenset({"bbox", "segmentation", "keypoints", "segments_info", "category_id"})
# A note on an image that is used all the same.
BOXES_IGNORED = "boxes ignored"


def read_coco(file: CorpusFile) -> Iterator[Record | Rejected]:
    """A record an image with all its captions, keyed by the image's id; file names are looked up in the images folder."""
    # An empty name is a temporary database that SQLite keeps on disk, beyond a few MB, and removes.
    with closing(sqlite3.connect("", isolation_level=None)) as database:
        database.executescript(TABLES)
        database.execute("BEGIN")
        yield from _fill(database, file)
        database.execute("CREATE INDEX by_image ON captions (image_id, number)")
        _check(database, file)
        for (id, name, is_boxed), found in itertools.groupby(database.execute(PAIRS), key=lambda pair: pair[:3]):
            captions = [json.loads(caption) for *_, caption in found if caption is not None]
            key = str(json.loads(id))
            image = file.images.image(json.loads(name)) if file.takes_images else []
            yield pair_record(f"{file.name} id {key}", key, captions, image, (BOXES_IGNORED,) if is_boxed else ())
        for (number,) in database.execute(ORPHANS):
            yield Rejected(file.source, f"{file.name} annotation {number}", "caption of an unknown image")


def _check(database: sqlite3.Connection, file: CorpusFile) -> None:
    """BadInput where the file cannot be one of captions."""

    def has_any(table: str) -> bool:
        return bool(database.execute(f"SELECT EXISTS (SELECT 1 FROM {table})").fetchone()[0])

    captions_file = "give COCO's captions file (captions_train2017.json)"
    if not has_any("images"):
        raise BadInput(f"{file.name} lists no images that have an id; {captions_file}, with `images` and `annotations`")
    if has_any("boxed") and not has_any("captions"):
        raise BadInput(f"{file.name} holds boxes or segments and no captions; {captions_file}")


def _fill(database: sqlite3.Connection, file: CorpusFile) -> Iterator[Rejected]:
    numbers = {"images": itertools.count(), "annotations": itertools.count()}
    for section, entry in json_sections(file.bytes, file.name):
        if section not in numbers:
            continue
        number = next(numbers[section])
        reason = _image(database, number, entry) if section == "images" else _annotation(database, number, entry)
        if reason:
            yield Rejected(file.source, f"{file.name} {section.removesuffix('s')} {number}", reason)


def _image(database: sqlite3.Connection, number: int, entry: Any) -> str | None:
    """Keep one entry of `images`, or say why not."""
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), (int, str)):
        return "image has no id"
    # As JSON, so that 1 and "1" stay two ids, and whatever stands for a name is judged where names are.
    values = (json.dumps(entry["id"]), number, json.dumps(entry.get("file_name")))
    kept = database.execute("INSERT OR IGNORE INTO images VALUES (?, ?, ?)", values).rowcount
    return None if kept else "duplicate key"


def _annotation(database: sqlite3.Connection, number: int, entry: Any) -> str | None:
    """Keep one entry of `annotations`, or say why not."""
    if not isinstance(entry, dict) or not isinstance(entry.get("image_id"), (int, str)):
        return "annotation has no image_id"
    if "caption" not in entry and not OTHER_ANNOTATIONS.isdisjoint(entry):
        database.execute("INSERT OR IGNORE INTO boxed VALUES (?)", (json.dumps(entry["image_id"]),))
        return None
    values = (json.dumps(entry["image_id"]), number, json.dumps(entry.get("caption")))
    database.execute("INSERT INTO captions VALUES (?, ?, ?)", values)
    return None
