"""How does any image file become a small square RGB picture? Its header is checked before a pixel is decoded."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageOps

# Pillow otherwise sniffs every format it knows, some of which start other programs.
FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 64_000_000


class ImageError(ValueError):
    """One image cannot be used; the message is the reason, without its position."""


def encode_png(pixels: np.ndarray) -> bytes:
    """PNG bytes of uint8 [height, width, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def decode_png(data: bytes) -> np.ndarray:
    """uint8 [height, width, 3] of a PNG that ingest wrote."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        return np.asarray(image.convert("RGB"))


def to_square_png(data: bytes, side_px: int) -> bytes:
    """Decode, turn upright, scale the short side to side_px, crop the middle, and encode as RGB PNG.

    Raises ImageError for a format outside FORMATS, a picture over MAX_PIXELS (before decoding it), or broken data.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise ImageError("image has too many pixels")
                return encode_png(np.asarray(_square(image, side_px)))
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise ImageError("image has too many pixels") from None
        except Image.UnidentifiedImageError:
            raise ImageError(f"image is not {', '.join(FORMATS)}") from None
        except ImageError:
            raise
        except Exception:
            # On broken data decoders raise almost anything: OSError, SyntaxError, struct.error, zlib.error, IndexError.
            raise ImageError("image data is broken") from None


def _square(image: Image.Image, side_px: int) -> Image.Image:
    # Colours behind transparency are arbitrary; they are shown on black, as most viewers and the scenes do.
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):
        # Pillow clips 16-bit grey to white where it should scale it.
        upright = Image.fromarray((np.asarray(upright).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if upright.has_transparency_data:
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "black"), upright.convert("RGBA"))
    rgb = upright.convert("RGB")
    if rgb.size == (side_px, side_px):
        return rgb
    return ImageOps.fit(rgb, (side_px, side_px), method=Image.Resampling.LANCZOS)
