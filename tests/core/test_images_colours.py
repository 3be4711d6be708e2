"""Colours are converted to sRGB by a picture's profile, and a profile that cannot be used is told."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from core.images import BROKEN_PROFILE, OWN_RULES, prepare_image, to_square_png
from core.png import decode_png
from tests.core.made_pictures import BLUE, GREEN, LONG, RED, chunk, encoded, halves, icc, png_with, quadrants


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_colours_are_converted_to_srgb(format: str) -> None:
    """A profile that calls sRGB's green primary red, and the other way round, with half the curve."""
    swapped = icc(b"RGB ", 1.0, r=GREEN, g=RED, b=BLUE)
    image = Image.new("RGB", (32, 32), (255, 0, 0))
    image.paste((128, 128, 128), (0, 16, 32, 32))
    options = {"lossless": True} if format == "WEBP" else {"quality": 95} if format == "JPEG" else {}
    pixels = decode_png(to_square_png(encoded(image, format=format, icc_profile=swapped, **options), 32)).astype(int)
    assert np.abs(pixels[4, 4] - (0, 255, 0)).max() < 6
    # 128 of 255 of linear light is 188 in sRGB (IEC 61966-2-1).
    assert np.abs(pixels[28, 4] - 188).max() < 4


def test_a_grey_profile_is_applied_to_grey_pictures() -> None:
    linear = icc(b"GRAY", 1.0)
    for image in (Image.new("L", (32, 32), 128), Image.new("LA", (32, 32), (128, 255))):
        pixels = decode_png(to_square_png(encoded(image, format="PNG", icc_profile=linear), 32)).astype(int)
        assert np.abs(pixels - 188).max() < 3


@pytest.mark.parametrize(
    ("mode", "profile"),
    [("RGB", b"no profile"), ("RGB", icc(b"GRAY", 1.0)), ("CMYK", icc(b"RGB ", 1.0, r=GREEN, g=RED, b=BLUE))],
)
def test_a_profile_that_cannot_be_used_is_ignored_and_told(mode: str, profile: bytes) -> None:
    image = halves(40, 40).convert(mode)
    plain = prepare_image(encoded(image, format="JPEG"), 32, OWN_RULES)
    found = prepare_image(encoded(image, format="JPEG", icc_profile=profile), 32, OWN_RULES)
    assert found.notes == (BROKEN_PROFILE,)
    assert plain.notes == ()
    assert found.png == plain.png


def test_an_srgb_profile_changes_nothing() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    found = prepare_image(encoded(Image.fromarray(pixels), format="PNG", icc_profile=srgb), 32, OWN_RULES)
    assert found.notes == ()
    assert np.array_equal(decode_png(found.png), pixels)


def test_a_large_profile_of_a_png_is_applied() -> None:
    """Over a megabyte, as profiles with tables are; the padding stands behind the last tag."""
    profile = icc(b"RGB ", 1.0, r=GREEN, g=RED, b=BLUE)
    size = len(profile) + 2_000_000
    profile = struct.pack(">I", size) + profile[4:] + np.random.default_rng(5).bytes(2_000_000)
    found = prepare_image(encoded(Image.new("RGB", (32, 32), (255, 0, 0)), format="PNG", icc_profile=profile), 16, OWN_RULES)
    assert found.notes == ()
    assert np.abs(decode_png(found.png)[4, 4].astype(int) - (0, 255, 0)).max() < 6


@pytest.mark.parametrize("content", [b"", b"a\0\7" + LONG, b"a\0\0" + zlib.compress(bytes(20_000_000)), b"a\0\0junk"])
def test_a_pngs_profile_that_cannot_be_unpacked_is_ignored_and_told(content: bytes) -> None:
    found = prepare_image(png_with(b"IDAT", chunk(b"iCCP", content)), 16, OWN_RULES)
    assert found == (to_square_png(encoded(quadrants(), format="PNG"), 16), (BROKEN_PROFILE,))
