"""Every usable image becomes an upright RGB square, and every other is refused before it can do harm."""

from __future__ import annotations

import dataclasses
import io
import random
import struct
import time
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from core.images import BROKEN_EXIF, BROKEN_PROFILE, LATER_FRAMES, OWN_RULES, ImageError, prepare_image, to_square_png
from core.png import decode_png, encode_png

ANY_FORMAT = dataclasses.replace(OWN_RULES, formats=("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP"))
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


def noise_png(**options: object) -> bytes:
    """Of 24 x 24 pixels that hardly pack."""
    pixels = np.random.default_rng(5).integers(0, 256, (24, 24, 3), np.uint8)
    return encoded(Image.fromarray(pixels), format="PNG", **options)


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


def flipped(data: bytes, at: int, bit: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def in_pieces(data: bytes, piece_bytes: int) -> tuple[bytes, bytes, bytes]:
    """A PNG of one IDAT chunk: what stands before, its content in chunks of piece_bytes, what stands behind."""
    at = data.index(b"IDAT") - 4
    end = at + 12 + struct.unpack_from(">I", data, at)[0]
    content = data[at + 8 : end - 4]
    pieces = [content[start : start + piece_bytes] for start in range(0, len(content), piece_bytes)]
    return data[:at], b"".join(chunk(b"IDAT", piece) for piece in pieces), data[end:]


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


def chunk(kind: bytes, data: bytes, checksum: bytes = b"") -> bytes:
    """One chunk of a PNG; checksum: in place of the right one."""
    return struct.pack(">I", len(data)) + kind + data + (checksum or struct.pack(">I", zlib.crc32(kind + data)))


def huge_png(side: int) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def huge_webp(side: int) -> bytes:
    """An extended WebP (RFC 9649) whose header alone is large."""
    body = b"WEBPVP8X" + struct.pack("<IB3x", 10, 0) + 2 * (side - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", len(body)) + body


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


LONG = zlib.compress(b"x" * 3_000_000)
ORIENTED = b"""<x xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>"""


def png_with(before: bytes, *chunks: bytes) -> bytes:
    data = encoded(quadrants(), format="PNG")
    at = data.index(before) - 4
    return data[:at] + b"".join(chunks) + data[at:]


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


def test_an_exif_block_that_cannot_be_read_is_ignored_and_told() -> None:
    webp = encoded(quadrants(), format="WEBP", lossless=True, exif=b"junk")
    for data in (png_with(b"IDAT", chunk(b"eXIf", b"junk")), webp):
        found = prepare_image(data, 16, OWN_RULES)
        assert found == (to_square_png(encoded(quadrants(), format="PNG"), 16), (BROKEN_EXIF,))


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


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
