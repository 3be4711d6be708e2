"""Image files to pixels and back, prepared as the corpus was, so that a picture is what the model knows.

Turned upright (EXIF), 16-bit grey to 8 bits by its high byte, transparency laid on black, the short side scaled to fit, the
middle cropped, colours converted to sRGB where the file brings a profile that can be used.

Tests hold this file and png_chunks.py equal to those of components/data/ingest, which export may not import.

Legend: N images; pixels are float [N, 3, height, width] in -1..1.
"""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from export.failure import BadPrompt
from export.png_chunks import strip_png
from model.latents.autoencoder import to_images, to_pixels

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP")
# Above this a small file may be made to fill the memory.
MAX_PIXELS = 64_000_000
TOO_MANY_PIXELS, TOO_MUCH_MEMORY = "image has too many pixels", "image needs too much memory"

EXIF_ORIENTATION = 0x0112
# What turns a picture stored in each orientation upright (EXIF 2.3, table 7), by the names in PIL.Image.Transpose.
TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
# Colour space of an ICC profile -> the mode of pictures it describes, and the modes that become that without loss.
PROFILE_MODES = {
    "RGB": ("RGB", {"RGB", "RGBA", "P", "PA", "L", "LA", "1"}),
    "GRAY": ("L", {"L", "LA", "1", "I", "I;16", "I;16B", "I;16L"}),
    "CMYK": ("CMYK", {"CMYK"}),
}


def read_pixels(data: bytes, side_px: int) -> Tensor:
    """An encoded image's bytes -> pixels [1, 3, side, side], its centre square; raises BadPrompt with one sentence."""
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            stripped = strip_png(data)
            # The header alone is read here, so the size is judged before anything is unpacked.
            with Image.open(io.BytesIO(stripped.data), formats=FORMATS) as image:
                if stripped.profile:
                    image.info["icc_profile"] = stripped.profile
                if image.width * image.height > MAX_PIXELS:
                    raise BadPrompt(TOO_MANY_PIXELS)
                square = np.asarray(_square(image, side_px)).copy()
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise BadPrompt(TOO_MANY_PIXELS) from None
        except UnidentifiedImageError:
            raise BadPrompt(f"image is not {', '.join(FORMATS)}") from None
        except BadPrompt:
            raise
        except MemoryError:
            raise BadPrompt(TOO_MUCH_MEMORY) from None
        except Exception:
            # On broken data decoders raise almost anything: OSError, SyntaxError, struct.error, zlib.error, IndexError.
            raise BadPrompt("image data is broken") from None
    return to_pixels(torch.from_numpy(square)[None])


def write_pngs(pixels: Tensor) -> list[bytes]:
    """Pixels [N, 3, height, width] -> one PNG file's bytes an image."""
    from PIL import Image

    files = []
    for image in to_images(pixels).numpy():
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, format="PNG")
        files.append(buffer.getvalue())
    return files


def upright(image: Image.Image) -> Image.Image:
    """As its EXIF block says it was seen."""
    from PIL import Image

    # Decoded first: of a PNG the EXIF block is read behind the pixels, whose damage must not pass for the block's.
    image.load()
    # Not ImageOps.exif_transpose, which fails on other parts of a broken block.
    try:
        turn = TURNS.get(image.getexif().get(EXIF_ORIENTATION, 1))
    except Exception:
        # Of a broken block anything may be raised, and the picture is whole all the same.
        return image
    return image if turn is None else image.transpose(Image.Transpose[turn])


def _square(image: Image.Image, side_px: int) -> Image.Image:
    from PIL import Image, ImageCms, ImageOps

    mode, transform = _profile(image)
    # A JPEG's decoder can leave out detail that the scaling would average away.
    image.draft(None, (2 * side_px, 2 * side_px))  # pyright: ignore[reportArgumentType]
    flat = _flat(upright(image), mode)
    if flat.size != (side_px, side_px):
        flat = ImageOps.fit(flat, (side_px, side_px), method=Image.Resampling.LANCZOS)
    if transform is not None:
        flat = ImageCms.applyTransform(flat, transform)
        assert flat is not None
    return flat


def _flat(image: Image.Image, mode: str) -> Image.Image:
    """The picture in `mode`, which has no transparency."""
    import numpy as np
    from PIL import Image

    if image.mode.startswith("I"):
        # Pillow clips 16-bit grey to white where it should scale it.
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
    return image.convert(mode)


def _profile(image: Image.Image) -> tuple[str, Any]:
    """The mode to bring the picture into, and what makes sRGB of that; None where nothing is to be converted."""
    from PIL import ImageCms

    icc = image.info.get("icc_profile")
    if not icc:
        return "RGB", None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        said: Any = source.profile
        mode, convertible = PROFILE_MODES[said.xcolor_space.strip()]
        if image.mode not in convertible or (said.profile_description or "").startswith("sRGB"):
            return "RGB", None
        return mode, ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except Exception:
        # lcms raises OSError for bytes that are no profile and PyCMSError for one it cannot use; KeyError is a space that
        # none of our formats has. Without its profile a picture is still a picture.
        return "RGB", None
