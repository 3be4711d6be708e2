"""Members of a tar that do not stand beside the rest of their record: remembered by their places, and brought together last."""

from __future__ import annotations

import itertools
import posixpath
import sqlite3
import tarfile
from collections.abc import Iterable, Iterator
from typing import IO, Any, NamedTuple

from components.data.ingest.readers.pairing import Part

TABLE = """
CREATE TABLE parts (number INTEGER PRIMARY KEY, "outer" BLOB, key BLOB, ending TEXT, offset INTEGER, size INTEGER, link BLOB);
CREATE TABLE targets (name BLOB PRIMARY KEY, offset INTEGER, size INTEGER);
"""
# Records in the order of their first parts; the records of one outer key stand together.
IN_ORDER = """
SELECT "outer", key, ending, parts.offset, parts.size, link, targets.offset, targets.size
FROM parts LEFT JOIN targets ON targets.name = parts.link
ORDER BY min(number) OVER (PARTITION BY "outer"), number
"""


class Slot(NamedTuple):
    """Where a member's data lies."""

    data: bytes | None
    """The bytes, once they are read."""
    offset: int
    size: int
    """Bytes in the tar; offset -1 where nothing can be read there."""
    link: str = ""
    """The member that it stands for, else ""."""
    fault: str = ""
    """Why the member cannot be used, else ""."""


class Leftovers:
    """Parts without their data, in a temporary database that SQLite keeps on disk beyond a few MB."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(TABLE)
        self._database.execute("BEGIN")
        self._has_links = False

    def close(self) -> None:
        """Remove the database."""
        self._database.close()

    def add(self, parts: Iterable[Part]) -> None:
        """Remember where they lie."""
        for part in parts:
            slot: Slot = part.value
            self._has_links |= bool(slot.link)
            # Names in a tar need not be UTF-8, which SQLite's text must be.
            values = (_bytes(part.outer), _bytes(part.key), part.ending, slot.offset, slot.size, _bytes(slot.link))
            self._database.execute(
                'INSERT INTO parts ("outer", key, ending, offset, size, link) VALUES (?, ?, ?, ?, ?, ?)', values
            )

    def find_targets(self, file: IO[bytes]) -> None:
        """Look up what links stand for, by reading the tar's headers once more."""
        if not self._has_links:
            return
        wanted = {name for (name,) in self._database.execute("SELECT DISTINCT link FROM parts WHERE link != x''")}
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                name = _bytes(plain_name(member.name))
                if name in wanted and member.isreg() and not member.issparse():
                    # Of two members with one name the later one counts, as it does for who unpacks the tar.
                    values = (name, member.offset_data, member.size)
                    self._database.execute("INSERT OR REPLACE INTO targets VALUES (?, ?, ?)", values)
                tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]

    def by_outer(self) -> Iterator[list[Part]]:
        """All parts, those of one outer key at a time."""
        parts: Iterable[Any] = self._database.execute(IN_ORDER)
        for outer, found in itertools.groupby(parts, key=lambda part: part[0]):
            yield [_part(_text(outer), *part[1:]) for part in found]


def plain_name(name: str) -> str:
    """A member's name without what two spellings of one path can differ in."""
    return posixpath.normpath(name.lstrip("/")) if name else ""


def _part(outer: str, key: bytes, ending: str, offset: int, size: int, link: bytes, at: int | None, length: int | None) -> Part:
    slot = Slot(None, offset, size, _text(link))
    if link and at is not None and length is not None:
        slot = Slot(None, at, length)
    return Part(outer, _text(key), ending, slot)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
