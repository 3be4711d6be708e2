"""Pictures for the page: files of any size as addresses that hold them, large ones made smaller."""

from __future__ import annotations

import io

from PIL import Image

from core.data_uri import data_uri

# A PNG up to this size stays as it is, so that pixels and letters are sharp.
MOST_BYTES, MOST_WIDTH_PX = 150_000, 1000


def file_uri(file: bytes) -> str:
    """Of a PNG's bytes; of many, a JPEG of the picture, scaled down to MOST_WIDTH_PX."""
    if len(file) <= MOST_BYTES:
        return data_uri(file)
    with Image.open(io.BytesIO(file), formats=["PNG"]) as opened:
        image, buffer = opened.convert("RGB"), io.BytesIO()
    image.thumbnail((MOST_WIDTH_PX, image.height))
    image.save(buffer, format="JPEG", quality=80)
    return data_uri(buffer.getvalue())
