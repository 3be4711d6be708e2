"""Pictures as files, whole and with parts that a test puts together by hand: profiles, chunks, segments."""

from __future__ import annotations

import dataclasses
import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from core.images import OWN_RULES

ANY_FORMAT = dataclasses.replace(OWN_RULES, formats=("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP"))
# XYZ columns of sRGB's primaries, as a profile holds them.
RED, GREEN, BLUE = (0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)


def encoded(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def halves(width: int, height: int) -> Image.Image:
    """Left half red, right half blue."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = 255
    pixels[:, width // 2 :, 2] = 255
    return Image.fromarray(pixels)


def quadrants() -> Image.Image:
    """Four colours, twice as wide as high, so that every turn and mirroring shows."""
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:20, :40], pixels[:20, 40:] = (250, 0, 0), (0, 250, 0)
    pixels[20:, :40], pixels[20:, 40:] = (0, 0, 250), (250, 250, 0)
    return Image.fromarray(pixels)


TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
}


def flipped(data: bytes, at: int, bit: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def icc(space: bytes, curve: float, **columns: tuple[float, float, float]) -> bytes:
    """A version 2 matrix profile (ICC.1:2001-04): XYZ columns and one gamma curve for every channel."""

    def fixed(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz(values: tuple[float, float, float]) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(map(fixed, values))

    gamma = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(curve * 256)) + b"\0\0"
    name = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78)
    tags = {b"desc": name, b"cprt": b"text\0\0\0\0none\0", b"wtpt": xyz((0.9642, 1.0, 0.8249))}
    tags |= {b"kTRC": gamma} if space == b"GRAY" else {b"rTRC": gamma, b"gTRC": gamma, b"bTRC": gamma}
    tags |= {channel.encode() + b"XYZ": xyz(values) for channel, values in columns.items()}
    at, table, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for tag, data in tags.items():
        table += tag + struct.pack(">II", at + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"lcms", 0x02100000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + b"".join(map(fixed, (0.9642, 1.0, 0.8249)))
    return head.ljust(128, b"\0") + table + body


def chunk(kind: bytes, data: bytes, checksum: bytes = b"") -> bytes:
    """One chunk of a PNG; checksum: in place of the right one."""
    return struct.pack(">I", len(data)) + kind + data + (checksum or struct.pack(">I", zlib.crc32(kind + data)))


def png_with(before: bytes, *chunks: bytes) -> bytes:
    data = encoded(quadrants(), format="PNG")
    at = data.index(before) - 4
    return data[:at] + b"".join(chunks) + data[at:]


LONG = zlib.compress(b"x" * 3_000_000)


def huge_png(side: int) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def huge_webp(side: int) -> bytes:
    """An extended WebP (RFC 9649) whose header alone is large."""
    body = b"WEBPVP8X" + struct.pack("<IB3x", 10, 0) + 2 * (side - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", len(body)) + body


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content
