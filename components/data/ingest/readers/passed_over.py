"""What lies in a corpus and is no record of it: files of systems and tools, told by their names, and a count of all of it."""

from __future__ import annotations

import bisect
import re
from collections import Counter
from pathlib import Path
from typing import Any

NUM_EXAMPLES = 3
# More kinds than these (endings of files, mostly) are counted together.
MAX_KINDS = 40
MORE = "more of other kinds"

SYSTEM = "hidden, temporary or system files"
# Of any part of a path, without regard to case; those with a dot or a tilde first are covered by what they begin with.
SYSTEM_NAMES = {
    *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "$recycle.bin", "system volume information"),
    *("lost+found", "@eadir", "#recycle", "__pycache__"),
    # Unfinished writes and logs of Spark and Delta Lake, which hold files of the table's own ending.
    *("_temporary", "_spark_metadata", "_delta_log"),
}
# Of a file: what editors, downloads and copies leave while they are under way, or after they were broken off.
UNFINISHED = (".tmp", ".temp", ".part", ".partial", ".crdownload", ".download", ".aria2", ".filepart", ".swp", ".swo", ".bak")
# Of a file, before its ending or behind it: "a (conflicted copy 2024-05-01).txt", "a.sync-conflict-20240501-101010-ABC.txt".
CONFLICT = re.compile(r"\((?:[^()]* )?(?:conflicted copy|case conflict)\b[^()]*\)|\.sync-conflict-\d{8}-\d{6}", re.IGNORECASE)


def is_system_path(path: str) -> bool:
    """Whether a path inside a corpus names, or lies in, what a system or a tool keeps there and nobody means as data.

    Hidden names, temporary ones, and copies that a sync tool makes of a file that changed in two places.
    """
    *folders, name = [part for part in path.split("/") if part not in ("", ".", "..")] or [""]
    return any(map(is_system_folder, folders)) or is_system_folder(name) or _is_unfinished(name)


def is_system_folder(name: str) -> bool:
    """The same for the name of one folder."""
    return name.startswith((".", "~")) or name.lower() in SYSTEM_NAMES


def another_ending(name: str) -> str:
    """The kind of a file or member that a reader does not look for, by its ending."""
    stem, dot, ending = name.rpartition("/")[2].rpartition(".")
    return f"files with another ending (.{ending.lower()})" if dot and stem and len(ending) <= 16 else "files without an ending"


def name_of(path: str) -> str:
    """A path for messages and keys: those of this machine have no place in outputs that are compared between machines."""
    return path.removeprefix(f"{Path.cwd()}/")


class PassedOver:
    """Counts what is no record, by kind, with the first names of each in alphabetical order.

    numbers: kind -> how many. examples: kind -> up to NUM_EXAMPLES names.
    """

    def __init__(self) -> None:
        self.numbers: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}

    def add(self, kind: str, name: str) -> None:
        """Count one; `name` tells a reader of the report which."""
        if kind not in self.numbers and len(self.numbers) >= MAX_KINDS:
            kind = MORE
        self.numbers[kind] += 1
        examples = self.examples.setdefault(kind, [])
        # The first by their names, because a disk lists files in no certain order and the report must not depend on it.
        bisect.insort(examples, name_of(name).encode(errors="backslashreplace").decode())
        del examples[NUM_EXAMPLES:]

    def report(self) -> dict[str, dict[str, Any]]:
        """For counts.json: kind -> {"number", "first": the first names}."""
        return {kind: {"number": self.numbers[kind], "first": self.examples[kind]} for kind in sorted(self.numbers)}

    def sentences(self) -> list[str]:
        """One of each kind: "2 broken links (a.tar, b.tar)"."""
        return [f"{number} {kind} ({self._shown(kind)})" for kind, number in sorted(self.numbers.items())]

    def _shown(self, kind: str) -> str:
        more = ", ..." if self.numbers[kind] > len(self.examples[kind]) else ""
        return ", ".join(self.examples[kind]) + more


def _is_unfinished(name: str) -> bool:
    of_an_editor = name.endswith("~") or (name.startswith("#") and name.endswith("#"))
    return of_an_editor or name.lower().endswith(UNFINISHED) or bool(CONFLICT.search(name))
