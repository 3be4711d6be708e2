"""Where do the files of a corpus lie, and how far has its reading come? Files, folders and globs, local or by any URL."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import fsspec

from components.data.config import NO_IMAGES, CorpusConfig
from components.data.readers.references import Folder
from components.runtime.failure import BadInput

GLOB_CHARACTERS = "*?["
# fsspec's file systems raise their libraries' own errors (botocore's are no OSError), so these places catch all of them.
ANY_STORAGE_ERROR = Exception


class Reading:
    """How far the reading of one corpus is.

    num_rows: handed on so far. total_rows: in all, where a reader knows it. in_file: share of the open file in 0..1, where
    a reader knows it better than by the bytes that were read in their order.
    """

    def __init__(self) -> None:
        self.num_rows = 0
        self.total_rows: int | None = None
        self.in_file: float | None = None
        self._total_bytes = self._finished_bytes = self._file_bytes = 0
        self._open: IO[bytes] | None = None

    def share(self) -> float:
        """Of the whole corpus in 0..1, by rows where their number is known, else by bytes; 0 where neither is."""
        if self.total_rows:
            return self.num_rows / self.total_rows
        return min(1.0, (self._finished_bytes + self._at() * self._file_bytes) / max(1, self._total_bytes))

    def _at(self) -> float:
        """How far the open file is, in 0..1."""
        if self.in_file is not None:
            return self.in_file
        if self._open is None or self._open.closed:
            return 0.0
        return self._open.tell() / max(1, self._file_bytes)

    def expect(self, total_bytes: int) -> None:
        """So many bytes will be read, in files that are opened with `file`."""
        self._total_bytes = total_bytes

    @contextmanager
    def file(self, raw: IO[bytes], num_bytes: int) -> Iterator[None]:
        """`raw`, of num_bytes, is being read in this context."""
        self._open, self._file_bytes = raw, num_bytes
        yield
        self._open, self.in_file, self._file_bytes = None, None, 0
        self._finished_bytes += num_bytes


class CorpusFile(NamedTuple):
    """One open file of a corpus.

    bytes: the file, decompressed. name: for positions and errors, without a path of this machine. source: the corpus's
    name. images: the folder where file names inside the file are looked up, the file's own where the corpus names none.
    is_local: small reads cost nothing. reading: what a reader tells how far it is in the file, where the bytes do not tell.
    """

    bytes: IO[bytes]
    name: str
    source: str
    images: Folder
    is_local: bool
    reading: Reading

    @property
    def takes_images(self) -> bool:
        """Whether pictures are to be read; not where the corpus's images are left out on purpose."""
        return self.images.system is not None


def locate(corpus: CorpusConfig, suffixes: tuple[str, ...]) -> tuple[Any, list[str]]:
    """The fsspec file system and the sorted paths that corpus.path names: a file, or a folder's or a glob's by suffix.

    Endings are compared without case. BadInput where nothing is there.
    """
    try:
        system, path = fsspec.core.url_to_fs(corpus.path)
        if any(character in path for character in GLOB_CHARACTERS):
            files = _with_suffix(system.glob(path), suffixes)
        elif system.isdir(path):
            files = _with_suffix(system.find(path), suffixes)
        else:
            files = [path] if system.exists(path) else []
    except ANY_STORAGE_ERROR as error:
        raise _not_listed(corpus.name, corpus.path, error) from None
    if not files:
        raise BadInput(
            f"the corpus {corpus.name!r} has no {' or '.join(suffixes)} files at {corpus.path};"
            " check the path in ingest.corpora"
        )
    return system, sorted(files)


def locate_folders(corpus: CorpusConfig) -> tuple[Any, list[str]]:
    """The fsspec file system and the sorted folders that corpus.path, or its glob, names; BadInput where none is."""
    try:
        system, path = fsspec.core.url_to_fs(corpus.path)
        found = system.glob(path) if any(character in path for character in GLOB_CHARACTERS) else [path]
        folders = [str(name).rstrip("/") for name in found if system.isdir(name)]
    except ANY_STORAGE_ERROR as error:
        raise _not_listed(corpus.name, corpus.path, error) from None
    if not folders:
        raise BadInput(f"the corpus {corpus.name!r} has no folder at {corpus.path}; check the path in ingest.corpora")
    return system, sorted(folders)


def open_files(corpus: CorpusConfig, suffixes: tuple[str, ...], reading: Reading) -> Iterator[CorpusFile]:
    """Every file of the corpus in turn, open until the next is asked for; gzip is unpacked by the name's ending."""
    system, paths = locate(corpus, suffixes)
    sizes = [_size(system, path) for path in paths]
    reading.expect(sum(sizes))
    images = images_folder(corpus)
    for path, num_bytes in zip(paths, sizes, strict=True):
        name = name_of(path)
        try:
            raw = system.open(path, "rb")
        except ANY_STORAGE_ERROR as error:
            raise BadInput(f"{name} cannot be opened ({error}); check the path in ingest.corpora") from None
        unpacked: Any = gzip.GzipFile(fileobj=raw) if path.lower().endswith((".gz", ".tgz")) else raw
        with raw, unpacked, reading.file(raw, num_bytes):
            folder = images if corpus.images else Folder(system, path.rpartition("/")[0])
            yield CorpusFile(unpacked, name, corpus.name, folder, is_local(system), reading)


def images_folder(corpus: CorpusConfig) -> Folder:
    """The folder that corpus.images names, and where it names none one that holds nothing; BadInput where it is not there."""
    if corpus.images in ("", NO_IMAGES):
        return Folder(None, "")
    try:
        folder = Folder(*fsspec.core.url_to_fs(corpus.images))
        is_there = folder.system.isdir(folder.path)
    except ANY_STORAGE_ERROR as error:
        raise _not_listed(corpus.name, corpus.images, error) from None
    if not is_there:
        raise BadInput(f"the corpus {corpus.name!r} has no images folder at {corpus.images}; check `images` in ingest.corpora")
    return folder


def is_local(system: Any) -> bool:
    """Whether its files lie on this machine's disks."""
    protocols = (system.protocol,) if isinstance(system.protocol, str) else system.protocol
    return "file" in protocols


def name_of(path: str) -> str:
    """A path for messages and keys: those of this machine have no place in outputs that are compared between machines."""
    return path.removeprefix(f"{Path.cwd()}/")


def _with_suffix(files: Sequence[str], suffixes: tuple[str, ...]) -> list[str]:
    return [name for name in map(str, files) if name.lower().endswith(suffixes)]


def _size(system: Any, path: str) -> int:
    try:
        return int(system.size(path) or 0)
    except ANY_STORAGE_ERROR:
        # Only progress needs it; a file that is gone is found when it is opened.
        return 0


def _not_listed(name: str, path: str, error: Exception) -> BadInput:
    return BadInput(f"the corpus {name!r} cannot be listed at {path} ({error}); check ingest.corpora")
