"""The files of a corpus, opened one after another and unpacked, and how far the reading of them has come."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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

EMPTY_FILE = "files that hold no row"


class Reading:
    """How far the reading of one corpus is.

    num_rows: handed on so far. total_rows: in all, where a reader knows it. in_file: share of the open file in 0..1, where
    a reader knows it better than by the bytes that were read in their order. passed_over: what of it is no row. pictured:
    the first of its tables that has pictures (True), and the first that has none (False).
    """

    def __init__(self) -> None:
        self.num_rows = 0
        self.total_rows: int | None = None
        self.in_file: float | None = None
        self.passed_over = PassedOver()
        self.pictured: dict[bool, str] = {}
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
    is_local: small reads cost nothing. reading: what a reader tells how far it is in the file, where the bytes do not tell,
    and what it passes over. is_plain: the file was not compressed. listed_pictures: endings of the pictures whose formats
    are in ingest.images.formats.
    """

    bytes: IO[bytes]
    name: str
    source: str
    images: Folder
    is_local: bool
    reading: Reading
    is_plain: bool = True
    listed_pictures: frozenset[str] = frozenset()

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
        # A file's name need not be UTF-8, and becomes a part of its rows' keys.
        name, rows_before = printable(name_of(path)), reading.num_rows
        try:
            raw = system.open(path, "rb")
        except ANY_STORAGE_ERROR as error:
            raise BadInput(f"{name} cannot be opened ({error}); check the path in ingest.corpora") from None
        folder = images if corpus.images else Folder(system, path.rpartition("/")[0])
        with raw, _unpacked(raw, name) as (unpacked, is_plain), reading.file(raw, num_bytes):
            yield CorpusFile(unpacked, name, corpus.name, folder, is_local(system), reading, is_plain, listed_pictures)
        if reading.num_rows == rows_before:
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
