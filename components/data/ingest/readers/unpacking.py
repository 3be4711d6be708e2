"""Compressed files and texts of other encodings read as plain ones, told by their first bytes and not by their names."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import json
import lzma
import zlib
from abc import abstractmethod
from typing import IO, Any, NamedTuple

import pyarrow as pa

# What a damaged or cut file of any of these kinds raises while it is read.
UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException)
# Endings that a compressed file may have behind its own.
COMPRESSED_ENDINGS = (".gz", ".bz2", ".xz", ".zst")
LONGEST_MAGIC = 6
BLOCK_BYTES = 2**16


class Unpacked(NamedTuple):
    """A file as it is read."""

    bytes: IO[bytes]
    """Of the file as it was before it was compressed."""
    is_plain: bool
    """Whether it was not, and so can be read anywhere."""


def unpack(raw: IO[bytes]) -> Unpacked:
    """The content of a file that is open at its beginning: gzip, bzip2, xz and zstd are unpacked, anything else is as it is."""
    magic = raw.read(LONGEST_MAGIC)
    raw.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        return Unpacked(gzip.GzipFile(fileobj=raw), is_plain=False)  # pyright: ignore[reportArgumentType]
    if magic.startswith(b"BZh"):
        return Unpacked(bz2.BZ2File(raw), is_plain=False)
    if magic.startswith(b"\xfd7zXZ\x00"):
        return Unpacked(lzma.LZMAFile(raw), is_plain=False)  # pyright: ignore[reportArgumentType]
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        return Unpacked(io.BufferedReader(_Zstd(raw), BLOCK_BYTES), is_plain=False)
    return Unpacked(raw, is_plain=True)


def as_utf8(file: IO[bytes]) -> IO[bytes]:
    """JSON in UTF-16 or UTF-32 as UTF-8, by RFC 4627's pattern of zeros or a byte order mark; any other file as it is."""
    start = file.read(4)
    file.seek(0)
    encoding = json.detect_encoding(start)
    if encoding.startswith("utf-8"):
        return file
    return io.BufferedReader(_Recoded(file, encoding), BLOCK_BYTES)


class _Forward(io.RawIOBase):
    """A file that is made as it is read: forward it can be sought by reading on, backward only to its beginning."""

    def __init__(self) -> None:
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """The new position; UnsupportedOperation from the end, which is not known."""
        wanted = offset + (self._at if whence == io.SEEK_CUR else 0)
        if whence == io.SEEK_END:
            raise io.UnsupportedOperation("the end of a compressed file is not known")
        if wanted < self._at:
            self._restart()
            self._at = 0
        while self._at < wanted and self.read(min(BLOCK_BYTES, wanted - self._at)):
            pass
        return self._at

    def readinto(self, buffer: Any) -> int:
        found = self._next(len(buffer))
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)

    @abstractmethod
    def _next(self, most: int) -> bytes:
        """Up to `most` further bytes; none at the end."""

    @abstractmethod
    def _restart(self) -> None:
        """Go back to the beginning."""


class _Zstd(_Forward):
    """What a zstd file holds, frame after frame."""

    def __init__(self, raw: IO[bytes]) -> None:
        super().__init__()
        self._raw = raw
        self._restart()

    def _restart(self) -> None:
        self._raw.seek(0)
        self._stream = pa.CompressedInputStream(pa.PythonFile(_KeptOpen(self._raw), "r"), "zstd")

    def _next(self, most: int) -> bytes:
        return self._stream.read(most)


class _KeptOpen(io.RawIOBase):
    """A file that Arrow may read but not close, as it does with the stream before a restart."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)


class _Recoded(_Forward):
    """A text of another encoding as UTF-8. Half of a surrogate pair stays what it is, and so becomes no valid UTF-8."""

    def __init__(self, file: IO[bytes], encoding: str) -> None:
        super().__init__()
        self._file, self._encoding = file, encoding
        self._restart()

    def _restart(self) -> None:
        self._file.seek(0)
        self._decoder = codecs.getincrementaldecoder(self._encoding)("surrogatepass")
        self._left = b""

    def _next(self, most: int) -> bytes:
        ended = False
        while not self._left and not ended:
            block = self._file.read(BLOCK_BYTES)
            ended = not block
            try:
                self._left = self._decoder.decode(block, final=ended).encode("utf-8", "surrogatepass")
            except UnicodeDecodeError as error:
                raise OSError(f"it is no whole {self._encoding.upper()} ({error.reason})") from None
        found, self._left = self._left[:most], self._left[most:]
        return found
