"""The lines of a request file, read one at a time; what is no file of lines at all is said in one sentence."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from core.errors import BadInput

MAX_LINE_BYTES = 2**20
# Of lines that are too long, read and thrown away.
_PIECE_BYTES = 2**20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# How files begin that are lines only once they are unpacked or converted.
_WRAPPINGS = {
    b"\x1f\x8b": "is compressed (gzip); unpack it",
    b"\x28\xb5\x2f\xfd": "is compressed (zstd); unpack it",
    b"BZh": "is compressed (bzip2); unpack it",
    b"\xfd7zXZ\x00": "is compressed (xz); unpack it",
    b"PK\x03\x04": "is a zip archive; unpack it",
    b"PAR1": "is a Parquet file; write its rows as lines of JSON",
    b"\xff\xfe": "is UTF-16 or UTF-32; save it as UTF-8",
    b"\xfe\xff": "is UTF-16; save it as UTF-8",
    b"\x00\x00\xfe\xff": "is UTF-32; save it as UTF-8",
}


class RequestLines:
    """The lines of one file. After `numbered` has ended, sha256: of all bytes; hint: what the file may be instead, or ""."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sha256 = self.hint = ""

    def numbered(self) -> Iterator[tuple[int, bytes | str]]:
        """(number from 1, the line's bytes) of every line that is not blank; a sentence in place of a line that is too long."""
        digest = hashlib.sha256()
        first = b""
        with _opened(self.path) as file:
            for number, raw in enumerate(_lines(file, digest), start=1):
                line = raw.removeprefix(_BYTE_ORDER_MARK) if number == 1 and isinstance(raw, bytes) else raw
                if number == 1 and isinstance(line, bytes):
                    _check_wrapping(self.path, line)
                if not line.strip():
                    continue
                first = first or (line if isinstance(line, bytes) else b"")
                yield number, line
        self.sha256, self.hint = digest.hexdigest(), self._hint(first)

    def _hint(self, first: bytes) -> str:
        """What a file without one good line may have been meant as."""
        if b"\r" in first.strip():
            return "ends its lines in CR alone; convert them to LF"
        if first.lstrip()[:1] == b"[":
            return "is one JSON array"
        if first.strip() == b"{" or first.strip() == b"{}":
            return "spreads a request over several lines"
        return ""


def _opened(path: Path) -> BinaryIO:
    try:
        # A FIFO or a device would be waited for without end.
        if stat.S_ISREG(path.stat().st_mode):
            return path.open("rb")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BadInput(f"{path} cannot be read ({reason}); set infer.requests to a JSONL file of requests") from None
    kind = "a folder" if path.is_dir() else "not a file"
    raise BadInput(f"{path} is {kind}; set infer.requests to a JSONL file of requests")


def _lines(file: BinaryIO, digest: hashlib._Hash) -> Iterator[bytes | str]:
    while piece := file.readline(MAX_LINE_BYTES + 1):
        digest.update(piece)
        size, ended = len(piece), piece.endswith(b"\n")
        if size <= MAX_LINE_BYTES or ended:
            yield piece.removesuffix(b"\n")
            continue
        while not ended and (piece := file.readline(_PIECE_BYTES)):
            digest.update(piece)
            size, ended = size + len(piece), piece.endswith(b"\n")
        yield f"the line has {size - ended} bytes, more than {MAX_LINE_BYTES}"


def _check_wrapping(path: Path, first: bytes) -> None:
    for beginning, said in _WRAPPINGS.items():
        if first.startswith(beginning):
            raise BadInput(f"{path} {said}, then set infer.requests to the JSONL file")
    if b"\0" in first[:4]:
        raise BadInput(f"{path} is UTF-16 or UTF-32; save it as UTF-8, then set infer.requests to the JSONL file")
