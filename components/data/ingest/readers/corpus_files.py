"""The files of a corpus, opened one after another and unpacked, and how far the reading of them has come."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, NamedTuple

import fsspec

from components.data.config import NO_IMAGES, CorpusConfig
from components.data.ingest.readers.locating import ANY_STORAGE_ERROR, locate, not_listed
from components.data.ingest.readers.passed_over import PassedOver, name_of
from components.data.ingest.readers.records import printable
from components.data.ingest.readers.references import Folder
from components.data.ingest.readers.unpacking import Unpacked, unpack
from components.data.ingest.readers.walking import is_local
from core.errors import BadInput

EMPTY_FILE = "files that hold no record"


class Reading:
    """How far the reading of one corpus is."""

    def __init__(self) -> None:
        self.num_records = 0
        """Handed on so far."""
        self.total_records: int | None = None
        """In all, where a reader knows it."""
        self.in_file: float | None = None
        """Share of the open file in 0..1, where a reader knows it better than by the bytes that were read in their order."""
        self.passed_over = PassedOver()
        """What of the corpus is no record."""
        self.pictured: dict[bool, str] = {}
        """The first of its files that has pictures (True), and the first that has none (False)."""
        self._total_bytes = self._finished_bytes = self._file_bytes = 0
        self._open: IO[bytes] | None = None

    def share(self) -> float:
        """Of the whole corpus in 0..1, by records where their number is known, else by bytes; 0 where neither is."""
        if self.total_records:
            return self.num_records / self.total_records
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
    """One open file of a corpus."""

    bytes: IO[bytes]
    """The file, decompressed."""
    name: str
    """For positions and errors, without a path of this machine."""
    source: str
    """The corpus's name."""
    images: Folder
    """Where file names inside the file are looked up: the file's own folder where the corpus names none."""
    is_local: bool
    """Small reads cost nothing."""
    reading: Reading
    """What a reader tells how far it is, where the bytes do not tell, and what it passes over."""
    is_plain: bool = True
    """The file was not compressed."""
    listed_pictures: frozenset[str] = frozenset()
    """Endings of the pictures whose formats are in ingest.images.formats."""

    @property
    def takes_images(self) -> bool:
        """Whether pictures are to be read; not where the corpus's images are left out on purpose."""
        return self.images.system is not None


def open_files(
    corpus: CorpusConfig, suffixes: tuple[str, ...], reading: Reading, listed_pictures: frozenset[str] = frozenset()
) -> Iterator[CorpusFile]:
    """Every file of the corpus in turn, open until the next is asked for; compressed ones are unpacked, by their content."""
    system, paths = locate(corpus, suffixes, reading.passed_over)
    sizes = [_size(system, path) for path in paths]
    reading.expect(sum(sizes))
    images = images_folder(corpus)
    for path, num_bytes in zip(paths, sizes, strict=True):
        # A file's name need not be UTF-8, and becomes a part of its records' keys.
        name, records_before = printable(name_of(path)), reading.num_records
        try:
            raw = system.open(path, "rb")
        except ANY_STORAGE_ERROR as error:
            raise BadInput(f"{name} cannot be opened ({error}); check the path in ingest.corpora") from None
        folder = images if corpus.images else Folder(system, path.rpartition("/")[0])
        with raw, _unpacked(raw, name) as (unpacked, is_plain), reading.file(raw, num_bytes):
            yield CorpusFile(unpacked, name, corpus.name, folder, is_local(system), reading, is_plain, listed_pictures)
        if reading.num_records == records_before:
            reading.passed_over.add(EMPTY_FILE, name)


@contextmanager
def _unpacked(raw: Any, name: str) -> Iterator[Unpacked]:
    try:
        unpacked = unpack(raw)
    except ANY_STORAGE_ERROR as error:
        raise BadInput(f"{name} cannot be read ({error}); fetch it again") from None
    with unpacked.bytes:
        yield unpacked


def images_folder(corpus: CorpusConfig) -> Folder:
    """The folder that corpus.images names, and where it names none one that holds nothing; BadInput where it is not there."""
    if corpus.images in ("", NO_IMAGES):
        return Folder(None, "")
    try:
        folder = Folder(*fsspec.core.url_to_fs(corpus.images))
        is_there = folder.system.isdir(folder.path)
        if not is_there and not is_local(folder.system):
            # Over HTTP, isdir says no as well where the server does not answer; a listing then raises.
            with suppress(FileNotFoundError, NotADirectoryError):
                folder.system.ls(folder.path)
    except ANY_STORAGE_ERROR as error:
        raise not_listed(corpus.name, corpus.images, error) from None
    if not is_there:
        raise BadInput(f"the corpus {corpus.name!r} has no images folder at {corpus.images}; check `images` in ingest.corpora")
    return folder


def _size(system: Any, path: str) -> int:
    try:
        return int(system.size(path) or 0)
    except ANY_STORAGE_ERROR:
        # Only progress needs it; a file that is gone is found when it is opened.
        return 0
