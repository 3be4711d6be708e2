"""Cheap fingerprints of files: names, sizes and times of local ones, and of remote ones what their store lists.

No content is read, so that a corpus of any size is looked at in the time that its listing takes. A file that is written anew
with the size and the time of the old one, to the nanosecond, is not noticed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

# What stores call a version of an object's content, the surest first; a time tells no more than these.
VERSIONS = (
    *("etag", "md5hash", "content_md5", "digest", "checksum", "version_id"),
    *("lastmodified", "last_modified", "updated", "mtime", "created"),
)
MODULUS = 2**256


class Fingerprint(NamedTuple):
    """files, bytes: how many, and of what size together. digest: hex, of each file's name, size and time, in any order."""

    files: int
    bytes: int
    digest: str


class Entry(NamedTuple):
    """name: of one file. size: in bytes, or None where it is not known, or not there. version: what else tells of a change."""

    name: str
    size: int | None
    version: str


def fingerprint(entries: Iterable[Entry]) -> Fingerprint:
    """Of all entries; one is held at a time, because a corpus may have millions of files."""
    num_files = num_bytes = total = 0
    for entry in entries:
        num_files += 1
        num_bytes += entry.size or 0
        line = "\0".join(map(str, entry)).encode(errors="surrogateescape")
        # A sum does not depend on the order in which a disk lists its files.
        total = (total + int.from_bytes(hashlib.sha256(line).digest())) % MODULUS
    return Fingerprint(num_files, num_bytes, f"{total:064x}")


def local_entries(paths: Iterable[str]) -> Iterator[Entry]:
    """Of files here, links followed; a file that is not there has no size, and appears when it does."""
    # Many files have few folders, and to follow links takes longer than all else.
    real_folders, here = dict[str, str](), f"{Path.cwd()}/"
    for path in paths:
        name, (folder, _, base) = _below_here(path, here), path.rpartition("/")
        try:
            status, is_link = Path(path).stat(), Path(path).is_symlink()
        except OSError:
            yield Entry(name, None, "")
            continue
        if folder not in real_folders:
            real_folders[folder] = os.path.realpath(folder or ".")
        target = _below_here(os.path.realpath(path) if is_link else f"{real_folders[folder]}/{base}", here)
        # Where a link leads is part of it: another target may have the same size and time.
        yield Entry(name, status.st_size, f"{status.st_mtime_ns} {'' if target == name else target}")


def remote_entry(path: str, listed: Mapping[str, Any]) -> Entry:
    """Of a file in a store. listed: what fsspec says of it."""
    said = {str(key).lower().replace("-", "_"): value for key, value in listed.items()}
    version = next((str(said[name]) for name in VERSIONS if said.get(name)), "")
    return Entry(path, said.get("size"), version)


def _below_here(path: str, here: str) -> str:
    """Without the working directory `here`, so that a project that is moved with its files keeps its fingerprints."""
    return path.removeprefix("./").removeprefix(here)
