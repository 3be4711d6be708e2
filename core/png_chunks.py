"""PNG files without what their picture does not need: Pillow refuses a whole file for one text that is long or damaged.

Damaged pixels, on the other hand, it shows: it passes over the checksums of their chunks, and stops unpacking at the last row,
often before it has compared the sum of what is packed. So the checksums are compared here.

What stays: the picture's own chunks, its colours and transparency, its frames, and what says which way is up.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Ancillary chunks (PNG 3, 11.3) that change what is seen.
NEEDED = frozenset({b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT"})
# Texts in which ImageMagick and Adobe's programs say which way is up.
ORIENTATION_TEXTS = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
# Pillow's own limit for one text, and one of ours for a profile, as a JPEG may bring.
MAX_TEXT_BYTES, MAX_PROFILE_BYTES = 2**20, 2**24


class Stripped(NamedTuple):
    """data: the file to decode. profile: its ICC profile, b"" for one that is broken or too large, None without one."""

    data: bytes
    profile: bytes | None


class _Chunk(NamedTuple):
    """whole: with its length, kind and checksum, as far as the file goes."""

    kind: bytes
    whole: bytes

    @property
    def content(self) -> bytes:
        return self.whole[8:-4]

    @property
    def is_intact(self) -> bool:
        return self.whole[-4:] == struct.pack(">I", zlib.crc32(self.whole[4:-4]))


def strip_png(data: bytes) -> Stripped:
    """The file without texts, times and private chunks, and its profile apart; any other file as it is, without a profile.

    Raises ValueError where a checksum says that the pixels' data is damaged.
    """
    if not data.startswith(SIGNATURE):
        return Stripped(data, None)
    if not _pixels_are_intact(data):
        raise ValueError("damaged pixels")
    kept, profile = [SIGNATURE], None
    for chunk in _chunks(data):
        if chunk.kind == b"iCCP":
            profile = _profile(chunk)
        elif _is_needed(chunk):
            kept.append(chunk.whole)
    return Stripped(b"".join(kept), profile)


def _chunks(data: bytes) -> Iterator[_Chunk]:
    at, kind = len(SIGNATURE), b""
    while at + 8 <= len(data) and kind != b"IEND":
        size, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + size
        yield _Chunk(kind, data[at:end])
        at = end


def _pixels_are_intact(data: bytes) -> bool:
    """Whether every chunk is, from the first of pixels to the last.

    They stand together: one between them that is damaged and of another kind was theirs, and it is its name that is damaged.
    """
    begun = damaged = False
    for chunk in _chunks(data):
        begun |= chunk.kind == b"IDAT"
        damaged |= begun and not chunk.is_intact
        if damaged and chunk.kind == b"IDAT":
            return False
    return True


def _is_needed(chunk: _Chunk) -> bool:
    # A small first letter is for what a decoder may do without; bytes that are no letters are for it to complain of.
    if not chunk.kind.isalpha() or chunk.kind[:1].isupper() or chunk.kind in NEEDED:
        return True
    return chunk.kind in (b"tEXt", b"zTXt", b"iTXt") and chunk.is_intact and _tells_orientation(chunk)


def _profile(chunk: _Chunk) -> bytes:
    """The profile behind its name and a zero for the one method of compression; b"" where it is broken."""
    _, _, rest = chunk.content.partition(b"\0")
    return _inflated(rest[1:], MAX_PROFILE_BYTES) if chunk.is_intact and rest[:1] == b"\0" else b""


def _tells_orientation(chunk: _Chunk) -> bool:
    """Whether the text does, and is one that Pillow reads."""
    name = next((name for name in ORIENTATION_TEXTS if chunk.content.startswith(name)), None)
    if name is None:
        return False
    rest = chunk.content[len(name) :]
    if chunk.kind == b"tEXt":
        return len(rest) <= MAX_TEXT_BYTES
    if chunk.kind == b"iTXt":
        # Flag and method of compression, language, and the keyword in that language come before the text.
        is_packed, text = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[-1]
        return len(_inflated(text, MAX_TEXT_BYTES) if is_packed else text) in range(1, MAX_TEXT_BYTES)
    return bool(_inflated(rest[1:], MAX_TEXT_BYTES - 1))


def _inflated(data: bytes, max_bytes: int) -> bytes:
    """The unpacked data; b"" where it is broken or would be larger."""
    unpacker = zlib.decompressobj()
    try:
        found = unpacker.decompress(data, max_bytes + 1)
    except zlib.error:
        return b""
    return found if len(found) <= max_bytes else b""
