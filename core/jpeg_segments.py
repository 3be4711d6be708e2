"""JPEG files without the application segments that Pillow stumbles over: cut short, or of programs' own data."""

from __future__ import annotations

import struct

START = b"\xff\xd8"
SEGMENTS, START_OF_SCAN = range(0xE0, 0xF0), 0xDA
# What changes the picture (the way up, colours, how they are stored): marker, first bytes, and length at least.
NEEDED = ((0xE1, b"Exif\0\0", 14), (0xE2, b"ICC_PROFILE\0", 14), (0xEE, b"Adobe", 12))


def strip_jpeg(data: bytes) -> bytes:
    """The file with those application segments alone that change the picture and are whole; any other file as it is."""
    if not data.startswith(START):
        return data
    kept, at = [START], len(START)
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != START_OF_SCAN:
        if data[at + 1] == 0xFF:
            # Any number of these may stand before a marker.
            at += 1
            continue
        end = at + 2 + struct.unpack_from(">H", data, at + 2)[0]
        if data[at + 1] not in SEGMENTS or _is_needed(data[at + 1], data[at + 4 : end]):
            kept.append(data[at:end])
        at = end
    return b"".join([*kept, data[at:]])


def _is_needed(marker: int, content: bytes) -> bool:
    return any(marker == kind and content.startswith(head) and len(content) >= least for kind, head, least in NEEDED)
