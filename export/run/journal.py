"""The journal of batch inference: one line an answer, from which a killed run resumes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from core.files import named, read_json_lines
from export.run.picture_files import fingerprint
from export.run.requests import Prompt

# What `BatchActor` says of one line: line, id, task, and generated_text, generated_image or error.
Record = dict[str, Any]
# The record's keys for the fingerprint of the picture that was looked at, and for the engine that answered.
SEEN, ENGINE = "image_seen", "engine"


def read_journal(journal: Path, folder: Path) -> dict[int, Record]:
    """Line number -> record of what a run answered; a line cut off by a kill, or a lost picture, is ignored.

    folder: where generated_image paths start.
    """
    records: dict[int, Record] = {}
    for record in read_json_lines(journal):
        if isinstance(record.get("line"), int) and _has_picture(record, folder):
            records[record["line"]] = record
    return records


def _has_picture(record: Record, folder: Path) -> bool:
    """Whether the picture that a record speaks of is there, and whole."""
    image = record.get("generated_image")
    if image is None:
        return True
    path = folder / image
    return path.is_file() and path.stat().st_size == record.get("image_bytes")


def unchanged(records: Mapping[int, Record], lines: Sequence[Prompt], requests_folder: Path) -> dict[int, Record]:
    """The records of `lines` whose picture is still the one that was looked at."""
    kept = {}
    for line in lines:
        record = records.get(line.line)
        if record and record.get(SEEN) == fingerprint(requests_folder, line.image_name):
            kept[line.line] = record
    return kept


def engines_of(records: Mapping[int, Record]) -> str:
    """The engines that answered, by name: one as a rule, several where machines differ; "" where none did."""
    return ", ".join(sorted({record[ENGINE] for record in records.values() if ENGINE in record}))


def append_journal(journal: Path, records: Iterable[Record]) -> None:
    """Note finished answers."""
    # Made with the first answer, so that an engine that cannot be opened leaves no unfinished work behind.
    journal.parent.mkdir(parents=True, exist_ok=True)
    with named(journal), journal.open("a") as file:
        # A kill may have cut the last line: what follows starts on a new one.
        file.write("".join(f"\n{json.dumps(record)}" for record in records))
