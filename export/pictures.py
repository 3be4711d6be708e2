"""How do image files become pixels and back? As the corpus was prepared, so that a picture is what the model knows.

A test holds this file equal to components/data/intake/images.py, which it may not import.

Legend: N images; pixels are float [N, 3, height, width] in -1..1.
"""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from export.failure import BadPrompt
from model.latents.autoencoder import to_images, to_pixels

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP")
# Above this a small file may be made to fill the memory.
MAX_PIXELS = 64_000_000


def read_pixels(data: bytes, side_px: int) -> Tensor:
    """An encoded image's bytes -> pixels [1, 3, side, side], its centre square; raises BadPrompt."""
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            # The header alone is read here, so the size is judged before anything is unpacked.
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise BadPrompt("image has too many pixels")
                square = np.asarray(_square(image, side_px)).copy()
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise BadPrompt("image has too many pixels") from None
        except UnidentifiedImageError:
            raise BadPrompt(f"image is not {', '.join(FORMATS)}") from None
        except BadPrompt:
            raise
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


def _square(image: Image.Image, side_px: int) -> Image.Image:
    """Upright, transparency on black, short side scaled to side_px, the middle cropped."""
    import numpy as np
    from PIL import Image, ImageOps

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
