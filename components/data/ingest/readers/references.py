"""Files that a record only names: read a few records ahead of their turn, and never from outside their folder."""

from __future__ import annotations

import posixpath
import unicodedata
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from components.data.ingest.readers.records import Fault, FileReference, Record, UnusableError
from components.data.ingest.rejected import Rejected

# Object stores answer in tens of milliseconds, so several requests must be under way; local disks need none of it.
NUM_AHEAD = 16


class Folder(NamedTuple):
    """Where names inside a corpus are looked up."""

    system: Any
    """None for a corpus whose pictures are left out."""
    path: str

    def image(self, name: object) -> FileReference | Fault | None:
        """The image file called `name` in this folder; a Fault for a name that is no path inside it."""
        if name is None or name == "":
            return None
        if not isinstance(name, str) or "\0" in name or len(name) > 1024:
            return Fault("image name is no file name")
        assert self.system is not None, "a corpus whose pictures are left out looks up none"
        name = self._without_scheme(name)
        if "://" in name or name.startswith("//"):
            return Fault("image is a URL, and none is fetched")
        # A backslash may stand in a file's name, but mostly it is Windows's way to part folders.
        spellings = [name, name.replace("\\", "/")]
        if not name.isascii():
            # Macs write accents as signs of their own (NFD), where the list of names may have them in one (NFC).
            spellings += [unicodedata.normalize(form, name) for form in ("NFC", "NFD")]
        paths = [path for spelling in dict.fromkeys(spellings) if (path := self._inside(spelling))]
        if not paths:
            return Fault("image path leads out of the images folder")
        return FileReference(self.system, paths[0], "image", tuple(paths[1:]))

    def _inside(self, name: str) -> str | None:
        root = self.path.rstrip("/")
        path = posixpath.normpath(posixpath.join(root, name))
        return path if path.startswith(f"{root}/") else None

    def _without_scheme(self, name: str) -> str:
        """A URL of this folder's own storage (file://, s3://) as a path there; any other name as it is."""
        scheme, mark, _ = name.partition("://")
        protocols = self.system.protocol
        if not mark or scheme not in ((protocols,) if isinstance(protocols, str) else protocols):
            return name
        path = str(self.system._strip_protocol(name))
        root = f"{self.path.rstrip('/')}/"
        return path if path.startswith("/") else path.removeprefix(root) if path.startswith(root) else name


def read_ahead(records: Iterable[Record | Rejected]) -> Iterator[Record | Rejected]:
    """The same records in the same order, each FileReference replaced by the file's bytes, or by a Fault."""
    waiting: deque[Record | Rejected | Future[Record]] = deque()
    pool = ThreadPoolExecutor(NUM_AHEAD, thread_name_prefix="read-ahead")
    try:
        for record in records:
            waiting.append(pool.submit(_read, record) if isinstance(record, Record) and _names_files(record) else record)
            if len(waiting) > NUM_AHEAD:
                yield _result(waiting.popleft())
        while waiting:
            yield _result(waiting.popleft())
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _names_files(record: Record) -> bool:
    return any(isinstance(piece.value, FileReference) for piece in record.pieces)


def _result(record: Record | Rejected | Future[Record]) -> Record | Rejected:
    return record.result() if isinstance(record, Future) else record


def _read(record: Record) -> Record:
    return record._replace(pieces=tuple(piece._replace(value=_content(piece.value)) for piece in record.pieces))


def _content(value: object) -> Any:
    if not isinstance(value, FileReference):
        return value
    try:
        return value.read()
    except UnusableError as error:
        return Fault(str(error))
