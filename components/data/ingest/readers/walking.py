"""All files below a folder: links are followed, every real folder is read once, and what is no data is counted and left."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from components.data.ingest.readers.passed_over import SYSTEM, PassedOver, is_system_folder, is_system_path

BROKEN_LINK = "links to nothing that can be read"
READ_ALREADY = "links to what is read already"
NO_PLAIN_FILE = "pipes, sockets or devices"


class Walk:
    """Walks the folders of one corpus. passed_over: takes what is left out."""

    def __init__(self, system: Any, passed_over: PassedOver) -> None:
        self._system, self._passed_over = system, passed_over
        self._visited: set[tuple[int, int]] = set()
        self._links: list[str] = []

    def files(self, folder: str) -> Iterator[str]:
        """Paths of the files below `folder` that a system or a tool did not leave there; locally in no certain order."""
        if is_local(self._system):
            return self._local(folder)
        return self._remote(folder)

    def _remote(self, folder: str) -> Iterator[str]:
        for path in map(str, self._system.find(folder)):
            # A store has no folders; some tools write an empty object that stands for one.
            if path.endswith("/"):
                continue
            if is_system_path(path[len(folder) :]):
                self._passed_over.add(SYSTEM, path)
            else:
                yield path

    def _local(self, folder: str) -> Iterator[str]:
        """What lies below the folder itself comes first, so that a folder's own place counts before the links to it."""
        if not self._enter(folder):
            return
        yield from self._below(folder)
        while self._links:
            links, self._links = sorted(self._links), []
            for link in links:
                if self._enter(link):
                    yield from self._below(link)

    def _enter(self, folder: str) -> bool:
        """Whether the folder, by its device and number, is met for the first time: guards against loops and doubling."""
        identity = _identity(folder)
        is_new = identity not in self._visited
        self._visited.add(identity)
        if not is_new:
            self._passed_over.add(READ_ALREADY, folder)
        return is_new

    def _below(self, folder: str) -> Iterator[str]:
        with os.scandir(folder) as entries:
            for entry in entries:
                kind = _kind(entry)
                if is_system_folder(entry.name) if kind == "folder" else is_system_path(entry.name):
                    self._passed_over.add(SYSTEM, entry.path)
                elif kind == "folder" and entry.is_symlink():
                    self._links.append(entry.path)
                elif kind == "folder":
                    if self._enter(entry.path):
                        yield from self._below(entry.path)
                elif kind == "file":
                    yield entry.path
                else:
                    self._passed_over.add(kind, entry.path)


def outermost(folders: Iterable[str]) -> list[str]:
    """In the order of their names, without those that lie in another of them."""
    found: list[str] = []
    # By their parts, so that what lies in a folder follows it at once.
    for folder in sorted(folders, key=lambda folder: folder.split("/")):
        if not found or not folder.startswith(f"{found[-1]}/"):
            found.append(folder)
    return sorted(found)


def is_local(system: Any) -> bool:
    """Whether its files lie on this machine's disks."""
    protocols = (system.protocol,) if isinstance(system.protocol, str) else system.protocol
    return "file" in protocols


def without_second_links(paths: Iterable[str], passed_over: PassedOver) -> list[str]:
    """Local files, sorted, without those that are links to another of them or to nothing: a file of records is read once."""
    files, links = list[str](), list[str]()
    for path in sorted(set(paths)):
        (links if Path(path).is_symlink() else files).append(path)
    met = {_identity(path) for path in files} if links else set()
    for link in links:
        if not Path(link).exists():
            passed_over.add(BROKEN_LINK, link)
        elif _identity(link) in met:
            passed_over.add(READ_ALREADY, link)
        else:
            met.add(_identity(link))
            files.append(link)
    return sorted(files)


def _identity(path: str) -> tuple[int, int]:
    status = Path(path).stat()
    return status.st_dev, status.st_ino


def _kind(entry: os.DirEntry[str]) -> str:
    """ "folder" or "file", of what a link leads to; else the kind under which it is passed over."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
    except OSError:
        # A link that leads to itself, or into a folder that nobody may read.
        return BROKEN_LINK
    return BROKEN_LINK if entry.is_symlink() and not Path(entry).exists() else NO_PLAIN_FILE
