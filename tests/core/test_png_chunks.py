"""A PNG's damaged pixels are noticed, and its texts cost no picture and not its orientation."""

from __future__ import annotations

import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from core.images import OWN_RULES, ImageError, prepare_image, to_square_png
from core.png import decode_png, encode_png
from tests.core.made_pictures import LONG, chunk, encoded, flipped, png_with, quadrants


def noise_png(**options: object) -> bytes:
    """Of 24 x 24 pixels that hardly pack."""
    pixels = np.random.default_rng(5).integers(0, 256, (24, 24, 3), np.uint8)
    return encoded(Image.fromarray(pixels), format="PNG", **options)


def in_pieces(data: bytes, piece_bytes: int) -> tuple[bytes, bytes, bytes]:
    """A PNG of one IDAT chunk: what stands before, its content in chunks of piece_bytes, what stands behind."""
    at = data.index(b"IDAT") - 4
    end = at + 12 + struct.unpack_from(">I", data, at)[0]
    content = data[at + 8 : end - 4]
    pieces = [content[start : start + piece_bytes] for start in range(0, len(content), piece_bytes)]
    return data[:at], b"".join(chunk(b"IDAT", piece) for piece in pieces), data[end:]


def test_damage_under_a_pngs_checksums_never_passes_for_a_picture() -> None:
    """Whatever stands in its other chunks: the pixels are read before the EXIF block, and their damage is their own."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    exif = Image.Exif()
    exif[0x0112] = 6
    for whole in (noise_png(), noise_png(exif=exif)):
        start = whole.index(b"IDAT") + 4
        for at in rng.integers(start, start + 1500, 60).tolist():
            with pytest.raises(ImageError, match="image data is broken"):
                prepare_image(flipped(whole, at, int(rng.integers(8))), 16, OWN_RULES)


def test_a_bit_that_changes_no_pixel_is_damage_too() -> None:
    """Five bits of a stored block's first byte, behind two bytes of zlib's head (RFC 1950, RFC 1951), are not used."""
    whole = noise_png(compress_level=0)
    damaged = flipped(whole, whole.index(b"IDAT") + 6, 5)
    assert np.array_equal(decode_png(damaged), decode_png(whole))
    with pytest.raises(ImageError, match="image data is broken"):
        prepare_image(damaged, 16, OWN_RULES)


@pytest.mark.parametrize("piece_bytes", [1, 7, 10_000])
def test_damage_in_any_piece_of_a_png_is_noticed(piece_bytes: int) -> None:
    """Every bit of the pieces' names, data and checksums, also where the sum of what is packed stands in a piece of its own."""
    pixels = (np.add.outer(np.arange(12), np.arange(12))[..., None] * (1, 2, 3)).astype(np.uint8)
    head, packed, tail = in_pieces(encode_png(pixels), piece_bytes)
    whole = head + packed + tail
    assert np.array_equal(decode_png(to_square_png(whole, 12)), pixels)
    for at in range(len(head), len(head) + len(packed)):
        for bit in range(8):
            try:
                found = prepare_image(flipped(whole, at, bit), 12, OWN_RULES)
            except ImageError:
                continue
            # The last piece may lose its name where no row needs it.
            assert at >= len(whole) - len(tail) - 12 - piece_bytes
            assert np.array_equal(decode_png(found.png), pixels)


ORIENTED = b"""<x xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>"""


@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
@pytest.mark.parametrize(
    "made",
    [
        chunk(b"zTXt", b"workflow\0\0" + LONG),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LONG),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b"x" * 3_000_000),
        b"".join(chunk(b"tEXt", b"parameters%d\0" % number + b"x" * 1_000_000) for number in range(70)),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + LONG),
        chunk(b"zTXt", b"method\0\5abc"),
        chunk(b"tEXt", b"a\0b", checksum=b"none"),
        chunk(b"pHYs", bytes(9), checksum=b"none"),
        chunk(b"pHYs", b""),
        chunk(b"gAMA", b""),
        chunk(b"caBX", bytes(3_000_000)),
    ],
)
def test_a_pngs_texts_cost_no_picture(made: bytes, before: bytes) -> None:
    found = prepare_image(png_with(before, made), 16, OWN_RULES)
    assert found == prepare_image(encoded(quadrants(), format="PNG"), 16, OWN_RULES)


def test_a_png_that_is_cut_behind_its_pixels_is_whole() -> None:
    text = chunk(b"tEXt", b"a\0" + bytes(100))
    data = encoded(quadrants(), format="PNG")
    assert to_square_png(data[:-12] + text[:60], 16) == to_square_png(data, 16)


@pytest.mark.parametrize(
    "made",
    [
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + ORIENTED),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(ORIENTED)),
        chunk(b"eXIf", b"II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"),
        chunk(b"tEXt", b"Raw profile type exif\0\nexif\n      32\n"
              + b"457869660000" + b"49492a0008000000010012010300010000000600000000000000" + b"\n"),
    ],
)  # fmt: skip
def test_a_png_says_which_way_is_up(made: bytes) -> None:
    """Orientation 6, as EXIF and as XMP have it."""
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(np.asarray(quadrants()), -1)))
    data = png_with(b"IDAT", made, chunk(b"zTXt", b"workflow\0\0" + LONG))
    assert to_square_png(data, 16) == to_square_png(encoded(turned, format="PNG"), 16)
