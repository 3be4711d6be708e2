"""Any image file as a small square RGB picture: its header is checked before a pixel is decoded.

In this order: turned upright (EXIF), 16-bit grey to 8 bits by its high byte, transparency laid on the background, scaled
without distortion so that the short side fits, cropped, colours converted to sRGB where the file brings a profile.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image, ImageCms, ImageOps

from core.jpeg_segments import strip_jpeg
from core.png import encode_png
from core.png_chunks import strip_png

ImageFormat = Literal["PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP"]
CENTRE = (0.5, 0.5)

TOO_MANY_PIXELS, TOO_MUCH_MEMORY = "image has too many pixels", "image needs too much memory"
# Notes on a picture that is used all the same.
BROKEN_PROFILE, BROKEN_EXIF, LATER_FRAMES = "colour profile ignored", "EXIF block ignored", "later frames ignored"

EXIF_ORIENTATION = 0x0112
# What turns a picture stored in each orientation upright (EXIF 2.3, table 7).
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Colour space of an ICC profile -> the mode of pictures it describes, and the modes that become that without loss.
PROFILE_MODES = {
    "RGB": ("RGB", {"RGB", "RGBA", "P", "PA", "L", "LA", "1"}),
    "GRAY": ("L", {"L", "LA", "1", "I", "I;16", "I;16B", "I;16L"}),
    "CMYK": ("CMYK", {"CMYK"}),
}


class ImageError(ValueError):
    """One image cannot be used; the message is the reason, without its position."""


@dataclass(frozen=True, kw_only=True)
class ImageRules:
    """Which image files are taken, and what becomes of them. A format is told by the content, never by a name."""

    formats: tuple[ImageFormat, ...]
    """Those accepted; any other is refused by its header."""
    max_pixels: int
    """Width times height at most, read from the header."""
    min_side_px: int
    """Shortest side at least."""
    max_aspect_ratio: float
    """Longest side by shortest side at most."""
    animated: Literal["first_frame", "refuse"]
    """Of several frames take the first, or refuse the file."""
    background: Literal["black", "white"]
    """What shows through transparency."""


# For pictures that this pipeline made itself; a corpus's come under ingest.images.
OWN_RULES = ImageRules(
    formats=("PNG", "JPEG", "WEBP"),
    max_pixels=64_000_000,
    min_side_px=1,
    max_aspect_ratio=20.0,
    animated="first_frame",
    background="black",
)


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What decides on the pixels that a model sees of a file: a corpus's, and later a request's."""

    side_px: int
    """Side of the square picture."""
    background: Literal["black", "white"]
    """As in ImageRules."""
    animated: Literal["first_frame", "refuse"]
    """As in ImageRules."""


class PreparedPixels(NamedTuple):
    """pixels: uint8 [side, side, 3]. notes: what was passed over in the file, each one of the constants above."""

    pixels: np.ndarray
    notes: tuple[str, ...]


class PreparedImage(NamedTuple):
    """png: the square picture. notes: as in PreparedPixels."""

    png: bytes
    notes: tuple[str, ...]


def to_square_png(data: bytes, side_px: int, crop: tuple[float, float] = CENTRE) -> bytes:
    """The square PNG of a picture of this pipeline's own; see `prepare_image`."""
    return prepare_image(data, side_px, OWN_RULES, crop).png


def prepare_image(data: bytes, side_px: int, rules: ImageRules, crop: tuple[float, float] = CENTRE) -> PreparedImage:
    """`prepare_pixels` as a PNG file's bytes."""
    pixels, notes = prepare_pixels(data, side_px, rules, crop)
    try:
        return PreparedImage(encode_png(pixels), notes)
    except MemoryError:
        raise ImageError(TOO_MUCH_MEMORY) from None


def prepare_pixels(data: bytes, side_px: int, rules: ImageRules, crop: tuple[float, float] = CENTRE) -> PreparedPixels:
    """Decode an image file and make it a square RGB picture of side_px.

    crop: where the square lies along the upright picture's width and height: 0 left or top, 0.5 middle, 1 right or bottom.
    Raises ImageError for a format, size or shape that the rules refuse (before decoding), and for broken data.
    """
    assert all(0 <= share <= 1 for share in crop), crop
    notes: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            stripped = strip_png(data)
            with opened(stripped.data, rules) as image:
                if stripped.profile is not None:
                    image.info["icc_profile"] = stripped.profile
                _check_header(image, rules, notes)
                square = _square(image, side_px, rules.background, crop, notes)
                return PreparedPixels(np.asarray(square), tuple(notes))
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise ImageError(TOO_MANY_PIXELS) from None
        except Image.UnidentifiedImageError:
            raise ImageError(f"image is not {', '.join(rules.formats)}") from None
        except ImageError:
            raise
        except MemoryError:
            raise ImageError(TOO_MUCH_MEMORY) from None
        except Exception:
            # On broken data decoders raise almost anything: OSError, SyntaxError, struct.error, zlib.error, IndexError.
            raise ImageError("image data is broken") from None


def opened(data: bytes, rules: ImageRules) -> Image.Image:
    """The picture with its header read; Pillow's UnidentifiedImageError where it is of none of the formats."""
    # Without formats Pillow sniffs every one it knows, some of which start other programs.
    try:
        return Image.open(io.BytesIO(data), formats=rules.formats)
    except Image.UnidentifiedImageError:
        stripped = strip_jpeg(data)
        if stripped == data:
            raise
        return Image.open(io.BytesIO(stripped), formats=rules.formats)


def _check_header(image: Image.Image, rules: ImageRules, notes: list[str]) -> None:
    short, long = sorted(image.size)
    if short * long > rules.max_pixels:
        raise ImageError(TOO_MANY_PIXELS)
    if short < rules.min_side_px:
        raise ImageError("image is too small")
    if long > rules.max_aspect_ratio * short:
        raise ImageError("image is too narrow")
    # What a camera puts behind the picture (a preview, a depth map: MPO) is no animation. No frame is counted here: of
    # a GIF that would read the whole file.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        if rules.animated == "refuse":
            raise ImageError("image is animated")
        notes.append(LATER_FRAMES)


def _square(image: Image.Image, side_px: int, background: str, crop: tuple[float, float], notes: list[str]) -> Image.Image:
    profile = _profile(image, notes)
    # A JPEG's decoder can leave out detail that the scaling would average away: faster, and less memory.
    image.draft(None, (2 * side_px, 2 * side_px))  # pyright: ignore[reportArgumentType]
    flat = _flat(upright(image, notes), profile[0] if profile else "RGB", background)
    if flat.size != (side_px, side_px):
        flat = ImageOps.fit(flat, (side_px, side_px), method=Image.Resampling.LANCZOS, centering=crop)
    if profile:
        # On the small picture, because it costs as much a pixel as decoding does.
        flat = ImageCms.applyTransform(flat, profile[1])
        assert flat is not None
    return flat


def upright(image: Image.Image, notes: list[str]) -> Image.Image:
    """The picture as its EXIF block says it was seen."""
    # Decoded first: of a PNG the EXIF block is read behind the pixels, whose damage must not pass for the block's.
    image.load()
    # Not ImageOps.exif_transpose: it copies where nothing is to be turned, and fails on other parts of a broken block.
    try:
        turn = TURNS.get(image.getexif().get(EXIF_ORIENTATION, 1))
    except Exception:
        # Of a broken block anything may be raised, and the picture is whole all the same.
        notes.append(BROKEN_EXIF)
        return image
    return image if turn is None else image.transpose(turn)


def _flat(image: Image.Image, mode: str, background: str) -> Image.Image:
    """The picture in `mode`, which has no transparency."""
    if image.mode.startswith("I"):
        # Pillow clips 16-bit grey to white where it should scale it.
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, background), rgba)
    return image if image.mode == mode else image.convert(mode)


def _profile(image: Image.Image, notes: list[str]) -> tuple[str, Any] | None:
    """The mode to bring the picture into, and what makes sRGB of it; None where nothing is to be converted."""
    icc = image.info.get("icc_profile")
    if icc is None:
        return None
    try:
        space, transform = _transform(icc)
        mode, convertible = PROFILE_MODES[space]
        if image.mode in convertible:
            return (mode, transform) if transform else None
    except Exception:
        # lcms raises OSError for bytes that are no profile and PyCMSError for one it cannot use; KeyError is a space
        # that none of our formats has.
        pass
    notes.append(BROKEN_PROFILE)
    return None


@lru_cache(maxsize=8)
def _transform(icc: bytes) -> tuple[str, Any]:
    """The profile's colour space, and its transform to sRGB; None where it is sRGB. A corpus has few profiles."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    said: Any = source.profile
    space = said.xcolor_space.strip()
    if (said.profile_description or "").startswith("sRGB"):
        return space, None
    mode = PROFILE_MODES[space][0]
    return space, ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
