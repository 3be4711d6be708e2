"""What a run was told and its store has not heard yet: a folder of entries in order, kept until every one is delivered.

Any process may append, a worker that trains as well as the stage that started it; one at a time delivers. Appending is one
write to a local file, so that no store, however slow, delays who appends. The folder lives outside everything that stages
delete, and goes when the run has ended and the store has all of it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

ENTRIES = "entries.jsonl"
ENDED = ("FINISHED", "FAILED", "KILLED")
# Files go their own way: where the place for artefacts fails, numbers still arrive, and the other way round.
LANES = ("values", "files")


class Entry(NamedTuple):
    """value: what was appended. end: where the entry ends in the file, in bytes."""

    value: dict[str, Any]
    end: int


class Outbox:
    """One run's entries. folder: the run's own, made when the first entry is appended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: BinaryIO | None = None
        # Lane -> up to which byte the entries were delivered: a full disk takes no note of it.
        self._marks: dict[str, int] = {}

    @property
    def entries(self) -> Path:
        """The file of entries, one JSON object a line."""
        return self.folder / ENTRIES

    @property
    def files(self) -> Path:
        """Pictures and artefacts as they were when they were logged."""
        return self.folder / "files"

    def append(self, value: Mapping[str, Any]) -> None:
        """Add an entry. OSError where the disk does not take it; what it took of it is then no entry."""
        line = json.dumps(value).encode() + b"\n"
        if self._opened().write(line) != len(line):
            self.close()  # the next one to append ends the line
            raise OSError(f"{self.entries} took a part of an entry; is the disk full?")

    def keep(self, source: Path) -> str:
        """Copy a file, or a folder, so that its later changes change nothing here; returns its name in `files`."""
        name = uuid.uuid4().hex
        self.files.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, self.files / name / source.name)
        else:
            (self.files / name).mkdir()
            shutil.copyfile(source, self.files / name / source.name)
        return name

    def keep_bytes(self, data: bytes, file_name: str) -> str:
        """The same for a file that does not exist yet."""
        name = uuid.uuid4().hex
        (self.files / name).mkdir(parents=True)
        (self.files / name / file_name).write_bytes(data)
        return name

    def waiting(self) -> list[Entry]:
        """The entries that were not delivered."""
        return [entry for lane in LANES for entry in self.look(lane)[0]]

    def look(self, lane: str) -> tuple[list[Entry], int]:
        """The lane's entries that were not delivered, in order, and up to which byte the file was read.

        Half an entry, which a kill left, is none.
        """
        found, end = list[Entry](), self._delivered(lane)
        try:
            with self.entries.open("rb") as file:
                file.seek(end)
                lines = file.read().splitlines(keepends=True)
        except FileNotFoundError:
            return found, end
        at = end
        for line in lines:
            at += len(line)
            value = _parsed(line)
            if value is not None:
                end = at
            if value is not None and lane_of(value) == lane:
                found.append(Entry(value, at))
        return found, end

    def mark_delivered(self, entry: Entry) -> None:
        """Recorded only now, after the store took the entry: after a kill in between it is delivered again."""
        self.mark(lane_of(entry.value), entry.end)
        if name := entry.value.get("file"):
            shutil.rmtree(self.files / name, ignore_errors=True)

    def mark(self, lane: str, end: int) -> None:
        """What of the lane stands before `end`, in bytes, was delivered.

        Where the disk takes no note of it, this process remembers it, and another one would deliver it again.
        """
        if end == self._delivered(lane):
            return
        self._marks[lane] = end
        partial = self.folder / f"delivered.{os.getpid()}"
        with suppress(OSError):
            partial.write_text(str(end))
            partial.replace(self.folder / f"delivered-{lane}")

    def set_aside(self, entry: Entry, reason: str) -> None:
        """Keep an entry that the store will never take."""
        with (self.folder / "refused.jsonl").open("a") as file:
            file.write(json.dumps({"reason": reason, **entry.value}) + "\n")

    def has_ended(self) -> bool:
        """Whether the last status that was appended ends the run."""
        last = ""
        for line in self.entries.read_bytes().splitlines() if self.entries.exists() else ():
            value = _parsed(line)
            if value is not None and value["kind"] == "status":
                last = value.get("status", "")
        return last in ENDED

    def close(self) -> None:
        """Let others know that this process appends no more."""
        if self._file is not None:
            self._file.close()
            self._file = None

    @contextmanager
    def delivering(self) -> Iterator[bool]:
        """Whether this process is the one that delivers inside the block; there must be a folder.

        Where no file can be made, on a disk that is full say, the folder itself is locked.
        """
        try:
            lock = os.open(self.folder / "delivering.lock", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError:
            lock = os.open(self.folder, os.O_RDONLY)
        try:
            yield _locked(lock, fcntl.LOCK_EX)
        finally:
            os.close(lock)

    @contextmanager
    def without_writers(self) -> Iterator[bool]:
        """Whether no process has this outbox open to append; none opens it inside the block."""
        if not self.entries.exists():
            yield True
            return
        with self.entries.open("rb") as file:
            yield _locked(file.fileno(), fcntl.LOCK_EX)

    def remove_if_done(self, *, ended: bool = False) -> bool:
        """Delete the folder where the run has ended, everything is delivered and nobody appends.

        ended: the store knows of the run's end, whatever stands here.
        """
        with self.without_writers() as alone:
            if not alone or self.waiting() or not (ended or self.has_ended()) or (self.folder / "refused.jsonl").exists():
                return False
            shutil.rmtree(self.folder, ignore_errors=True)
            self._marks.clear()
            with suppress(OSError):  # other runs wait there
                self.folder.parent.rmdir()
        return True

    def _delivered(self, lane: str) -> int:
        """Up to which byte of the entries those of the lane were delivered."""
        try:
            noted = int((self.folder / f"delivered-{lane}").read_text())
        except (FileNotFoundError, ValueError):
            noted = 0
        return max(noted, self._marks.get(lane, 0))

    def _opened(self) -> BinaryIO:
        """The file, locked for writers. One that was deleted between the two is opened anew."""
        while self._file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = self.entries.open("ab", buffering=0)
            fcntl.flock(file, fcntl.LOCK_SH)
            if os.fstat(file.fileno()).st_nlink == 0:
                file.close()
                continue
            if not os.fstat(file.fileno()).st_size:
                self._marks.clear()  # another process removed the folder that they speak of
            _end_line(self.entries, file)
            self._file = file
        return self._file


def _end_line(path: Path, file: BinaryIO) -> None:
    """What is appended to a line that a kill cut short would be lost with it."""
    size = os.fstat(file.fileno()).st_size
    if size:
        with path.open("rb") as reader:
            reader.seek(size - 1)
            if reader.read(1) != b"\n":
                file.write(b"\n")


def lane_of(value: Mapping[str, Any]) -> str:
    """Which of LANES an entry goes."""
    return "files" if "file" in value else "values"


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and "kind" in value else None


def _locked(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
