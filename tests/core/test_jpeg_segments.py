"""A JPEG's short segments cost no picture, neither its orientation nor how its colours are stored."""

from __future__ import annotations

import struct

import pytest
from PIL import Image

from core.images import to_square_png
from tests.core.made_pictures import encoded, quadrants, segment


@pytest.mark.parametrize(
    "short",
    [
        segment(0xE0, b"JFIF\0"),
        segment(0xE2, b"ICC_PROFILE\0"),
        segment(0xEE, b"Adobe"),
        segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed"),
    ],
)
def test_a_jpegs_short_segments_cost_no_picture_and_not_its_orientation(short: bytes) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(quadrants(), format="JPEG", exif=exif)
    assert to_square_png(data[:2] + short + data[2:], 16) == to_square_png(data, 16)
    assert to_square_png(data, 16) != to_square_png(encoded(quadrants(), format="JPEG"), 16)


def test_a_jpegs_short_segment_does_not_cost_how_its_colours_are_stored() -> None:
    """Without the JFIF segment a decoder takes three components for YCbCr, unless Adobe's says that they are not changed."""
    plain = encoded(quadrants(), format="JPEG")
    headless = plain[:2] + plain[2 + len(segment(0xE0, bytes(14))) :]
    data = headless[:2] + segment(0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, 0)) + headless[2:]
    assert to_square_png(headless, 16) == to_square_png(plain, 16) != to_square_png(data, 16)
    short = segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed")
    assert to_square_png(data[:2] + short + data[2:], 16) == to_square_png(data, 16)
