"""Every usable image becomes an upright RGB square: sizes, modes, turns, crops and frames."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image, ImageOps

from core.images import BROKEN_EXIF, LATER_FRAMES, OWN_RULES, ImageError, prepare_image, to_square_png
from core.png import decode_png, encode_png
from tests.core.made_pictures import ANY_FORMAT, TURNS, chunk, encoded, halves, png_with, quadrants


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP"])
@pytest.mark.parametrize("size", [(64, 64), (90, 40), (40, 90), (8, 8)])
def test_formats_and_shapes_become_squares(format: str, size: tuple[int, int]) -> None:
    pixels = decode_png(prepare_image(encoded(halves(*size), format=format), 32, ANY_FORMAT).png)
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8
    left, right = pixels[:, :12].mean((0, 1)), pixels[:, 20:].mean((0, 1))
    assert left[0] > 180
    assert left[2] < 80
    assert right[2] > 180
    assert right[0] < 80


def test_a_picture_of_the_right_size_keeps_its_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    assert to_square_png(encode_png(pixels), 32) == encode_png(pixels)
    assert np.array_equal(decode_png(encode_png(pixels)), pixels)


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


@pytest.mark.parametrize(("background", "expected"), [("black", (0, 0, 0)), ("white", (255, 255, 255))])
def test_transparency_shows_the_background(background: str, expected: tuple[int, int, int]) -> None:
    rules = dataclasses.replace(OWN_RULES, background=background)
    palette = Image.new("P", (32, 32), 1)
    palette.putpalette([9, 9, 9, 200, 100, 50])
    for image, options in ((Image.new("RGBA", (32, 32), (10, 20, 30, 0)), {}), (palette, {"transparency": 1})):
        png = prepare_image(encoded(image, format="PNG", **options), 32, rules).png
        assert tuple(decode_png(png)[5, 5]) == expected
    assert tuple(decode_png(prepare_image(encoded(palette, format="PNG"), 32, rules).png)[5, 5]) == (200, 100, 50)


def test_cmyk_becomes_rgb() -> None:
    # Cyan ink takes red away, and key takes all.
    image = Image.new("CMYK", (32, 32), (255, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 16, 32, 32))
    pixels = decode_png(to_square_png(encoded(image, format="JPEG", quality=95), 32)).astype(int)
    assert np.abs(pixels[4, 4] - (0, 255, 255)).max() < 6
    assert np.abs(pixels[28, 4]).max() < 6


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("crop", [(0.5, 0.5), (0.0, 0.5), (1.0, 0.5)])
def test_pictures_are_upright_before_they_are_cropped(orientation: int, crop: tuple[float, float]) -> None:
    """TURNS: how the camera stored the upright picture that the orientation's name describes (EXIF 2.3, table 7)."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(TURNS[orientation](np.asarray(quadrants()))))
    png = to_square_png(encoded(stored, format="PNG", exif=exif), 20, crop)
    wanted = ImageOps.fit(quadrants(), (20, 20), method=Image.Resampling.LANCZOS, centering=crop)
    assert np.array_equal(decode_png(png), np.asarray(wanted))


def test_crops_lie_where_they_are_asked_for() -> None:
    wide = encoded(halves(64, 32), format="PNG")
    left, right = (decode_png(to_square_png(wide, 16, crop)) for crop in ((0.0, 0.5), (1.0, 0.5)))
    assert left[..., 0].min() > 240
    assert right[..., 2].min() > 240


def test_a_broken_exif_block_costs_no_picture() -> None:
    """Its orientation stands if it can be read, as it could in every program that shows pictures."""
    seed = 4
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "camera", 72.5
    for _ in range(300):
        block = bytearray(exif.tobytes())
        for at in rng.integers(6, len(block), 3):
            block[at] = int(rng.integers(0, 256))
        found = prepare_image(encoded(halves(64, 64), format="JPEG", exif=bytes(block)), 16, OWN_RULES)
        assert found.notes == () and decode_png(found.png).std() > 50


def test_an_exif_block_that_cannot_be_read_is_ignored_and_told() -> None:
    webp = encoded(quadrants(), format="WEBP", lossless=True, exif=b"junk")
    for data in (png_with(b"IDAT", chunk(b"eXIf", b"junk")), webp):
        found = prepare_image(data, 16, OWN_RULES)
        assert found == (to_square_png(encoded(quadrants(), format="PNG"), 16), (BROKEN_EXIF,))


def test_a_large_jpeg_is_decoded_at_part_of_its_size_and_looks_the_same() -> None:
    rng = np.random.default_rng(2)
    smooth = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize((1600, 1200), Image.Resampling.BICUBIC)
    data = encoded(smooth, format="JPEG", quality=95)
    wanted = ImageOps.fit(smooth, (64, 64), method=Image.Resampling.LANCZOS)
    difference = decode_png(to_square_png(data, 64)).astype(int) - np.asarray(wanted).astype(int)
    assert np.abs(difference).mean() < 1.5


@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF"])
def test_of_several_frames_the_first_is_taken_or_none(format: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "green", "blue")]
    data = encoded(frames[0], format=format, save_all=True, append_images=frames[1:])
    found = prepare_image(data, 32, ANY_FORMAT)
    assert found.notes == (LATER_FRAMES,)
    red, green, blue = decode_png(found.png)[5, 5].tolist()
    assert red > 240 and green < 10 and blue < 10
    with pytest.raises(ImageError, match="image is animated"):
        prepare_image(data, 32, dataclasses.replace(ANY_FORMAT, animated="refuse"))


def test_a_cameras_second_picture_is_no_animation() -> None:
    data = encoded(halves(40, 40), format="MPO", save_all=True, append_images=[Image.new("RGB", (10, 10))])
    found = prepare_image(data, 32, dataclasses.replace(OWN_RULES, animated="refuse"))
    assert found.notes == ()
    assert decode_png(found.png)[16, 4, 0] > 200
