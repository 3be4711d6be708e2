"""The endings that pictures have, by format: one table for every reader that tells pictures by their names."""

from __future__ import annotations

from collections.abc import Sequence

from core.images import ImageFormat

# What a format is called in ingest.images.formats -> the endings that its files have.
PICTURE_ENDINGS: dict[ImageFormat, tuple[str, ...]] = {
    "PNG": ("png",),
    "JPEG": ("jpg", "jpeg", "jpe", "jfif"),
    "WEBP": ("webp",),
    "AVIF": ("avif", "avifs"),
    "GIF": ("gif",),
    "BMP": ("bmp", "dib"),
}
# Pictures as well, though none of these formats can be listed: a record that has one must not be said to miss its picture.
OTHER_PICTURES = frozenset({"tif", "tiff", "heic", "heif", "jp2", "jxl", "ico", "ppm", "pgm", "psd", "svg"})
ALL_PICTURES = OTHER_PICTURES | {ending for endings in PICTURE_ENDINGS.values() for ending in endings}


def listed_endings(formats: Sequence[ImageFormat]) -> frozenset[str]:
    """The endings of pictures in these formats."""
    return frozenset(ending for format in formats for ending in PICTURE_ENDINGS[format])
