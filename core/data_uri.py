"""A picture as an address that holds it, for pages that need nothing but themselves."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from core.png import encode_png

KINDS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg"}
# The side that a picture is shown at, at most.
MOST_PX = 128


def data_uri(file: bytes) -> str:
    """Of a PNG's or a JPEG's bytes; ValueError for any other."""
    for beginning, kind in KINDS.items():
        if file.startswith(beginning):
            return f"data:image/{kind};base64,{base64.b64encode(file).decode()}"
    raise ValueError(f"neither PNG nor JPEG: {file[:8]!r}")


def picture_uri(pixels: np.ndarray) -> str:
    """Of uint8 [height, width, 3], MOST_PX a side at most: a PNG of the pixels, or scaled down and then a JPEG."""
    if max(pixels.shape[:2]) <= MOST_PX:
        return data_uri(encode_png(pixels, smallest=True))
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((MOST_PX, MOST_PX))
    image.save(buffer, format="JPEG", quality=90)
    return data_uri(buffer.getvalue())
