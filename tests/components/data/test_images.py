"""Does every usable image become an upright RGB square, and is every other refused before it can do harm?"""

from __future__ import annotations

import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from components.data.images import ImageError, decode_png, encode_png, to_square_png


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


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("size", [(64, 64), (90, 40), (40, 90), (8, 8)])
def test_formats_and_shapes_become_squares(format: str, size: tuple[int, int]) -> None:
    pixels = decode_png(to_square_png(encoded(halves(*size), format=format), 32))
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8
    left, right = pixels[:, :12].mean((0, 1)), pixels[:, 20:].mean((0, 1))
    assert left[0] > 180
    assert left[2] < 80
    assert right[2] > 180
    assert right[0] < 80


def test_a_picture_of_the_right_size_keeps_its_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    assert np.array_equal(decode_png(to_square_png(encode_png(pixels), 32)), pixels)


def test_the_middle_is_kept() -> None:
    pixels = np.zeros((32, 96, 3), np.uint8)
    pixels[:, 32:64] = 255
    assert decode_png(to_square_png(encode_png(pixels), 32)).min() > 200


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("L", 200, (200, 200, 200)),
        ("LA", (200, 0), (0, 0, 0)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), (0, 0, 0)),
        ("1", 1, (255, 255, 255)),
        ("I;16", 32768, (128, 128, 128)),
    ],
)
def test_other_modes_become_rgb(mode: str, value: object, expected: tuple[int, int, int]) -> None:
    image = Image.new(mode, (32, 32), value)  # type: ignore[arg-type]
    assert tuple(decode_png(to_square_png(encoded(image, format="PNG"), 32))[5, 5]) == expected


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    rotated_right = 6
    exif[0x0112] = rotated_right
    pixels = decode_png(to_square_png(encoded(halves(64, 64), format="JPEG", exif=exif), 32))
    # Turned clockwise, the left half is on top.
    assert pixels[:12, :, 0].mean() > 180
    assert pixels[20:, :, 2].mean() > 180


@pytest.mark.parametrize("format", ["GIF", "BMP", "TIFF", "PPM"])
def test_other_formats_are_refused(format: str) -> None:
    with pytest.raises(ImageError, match="is not PNG"):
        to_square_png(encoded(halves(16, 16), format=format), 32)


def huge_png(side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8_500, 12_000, 20_000])
def test_pixel_bombs_are_refused_by_their_header(side: int) -> None:
    started_s = time.monotonic()
    with pytest.raises(ImageError, match="too many pixels"):
        to_square_png(huge_png(side), 32)
    assert time.monotonic() - started_s < 1


def test_broken_data_only_ever_raises_bad_image() -> None:
    seed = 7
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    noisy = Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8))
    num_refused = 0
    for format in ("PNG", "JPEG", "WEBP"):
        whole = encoded(noisy, format=format)
        for _ in range(150):
            data = bytearray(whole[: int(rng.integers(1, len(whole) + 1))])
            for at in rng.integers(0, len(data), 4):
                data[at] ^= int(rng.integers(1, 256))
            try:
                assert decode_png(to_square_png(bytes(data), 16)).shape == (16, 16, 3)
            except ImageError:
                num_refused += 1
    assert num_refused > 250
    for data in (b"", b"not an image", whole[: len(whole) // 2]):
        with pytest.raises(ImageError):
            to_square_png(data, 16)
