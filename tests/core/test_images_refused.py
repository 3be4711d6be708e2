"""A picture that could do harm, or is none, is refused before it is decoded, in words and in little time."""

from __future__ import annotations

import dataclasses
import struct
import time

import numpy as np
import pytest
from PIL import Image

from core.images import OWN_RULES, ImageError, prepare_image, to_square_png
from core.png import decode_png
from tests.core.made_pictures import ANY_FORMAT, encoded, halves, huge_png, huge_webp


def test_a_million_frames_are_not_counted() -> None:
    """A GIF (version 89a) of one pixel, its frame repeated."""
    head = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + b"\xff\0\0\0\0\0"
    frame = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02D\x01\0"
    data = head + frame * 1_000_000 + b";"
    started_s = time.process_time()
    assert decode_png(prepare_image(data, 8, ANY_FORMAT).png)[0, 0].tolist() == [255, 0, 0]
    with pytest.raises(ImageError, match="image is animated"):
        prepare_image(data, 8, dataclasses.replace(ANY_FORMAT, animated="refuse"))
    assert time.process_time() - started_s < 2


def test_pictures_too_narrow_or_too_small_are_refused() -> None:
    with pytest.raises(ImageError, match="too narrow"):
        to_square_png(encoded(Image.new("RGB", (1, 1_000_000)), format="PNG"), 32)
    rules = dataclasses.replace(OWN_RULES, min_side_px=8, max_aspect_ratio=3.0)
    prepare_image(encoded(Image.new("RGB", (24, 8)), format="PNG"), 32, rules)
    with pytest.raises(ImageError, match="too narrow"):
        prepare_image(encoded(Image.new("RGB", (25, 8)), format="PNG"), 32, rules)
    with pytest.raises(ImageError, match="too small"):
        prepare_image(encoded(Image.new("RGB", (24, 7)), format="PNG"), 32, rules)


@pytest.mark.parametrize("format", ["GIF", "BMP", "TIFF", "PPM"])
def test_other_formats_are_refused(format: str) -> None:
    with pytest.raises(ImageError, match="is not PNG"):
        to_square_png(encoded(halves(16, 16), format=format), 32)


@pytest.mark.parametrize("side", [8_500, 12_000, 20_000, 60_000])
def test_pixel_bombs_are_refused_by_their_header(side: int) -> None:
    started_s = time.process_time()
    with pytest.raises(ImageError, match="too many pixels"):
        to_square_png(huge_png(side), 32)
    if side <= 16_383:  # a WebP's largest
        with pytest.raises(ImageError, match=r"too many pixels|broken|is not PNG"):
            to_square_png(huge_webp(side), 32)
    assert time.process_time() - started_s < 1


@pytest.mark.parametrize(
    "data",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(/tmp/x) (w) file\n",
        b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><image href="file:///etc/passwd"/></svg>',
        b"P6 4 4 255\n" + bytes(48),
        b"MZ" + bytes(100),
    ],
)
def test_what_may_run_a_program_or_read_a_file_is_no_picture(data: bytes) -> None:
    with pytest.raises(ImageError, match="image is not PNG, JPEG, WEBP"):
        to_square_png(data, 32)


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
