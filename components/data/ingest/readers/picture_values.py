"""Pictures told by one value alone: the first bytes of a file, base64, SVG markup, a file's name, a link."""

from __future__ import annotations

import base64
import re
from enum import Enum

ENDINGS = "jpg|jpeg|jpe|jfif|png|apng|gif|bmp|dib|webp|avif|heic|heif|tif|tiff|jxl|jp2|ico|svgz?"
FIRST_BYTES = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF.{4}WEBP|BM.{4}\0{4}|II\*\0|MM\0\*|\xff\x0a|\0\0\0\x0c(?:JXL |jP  )"
    rb"|.{4}ftyp(?:avi[fs]|hei[cx]|mif1|msf1)",
    re.DOTALL,
)
DATA_URI = re.compile(r"\s*data:image/", re.IGNORECASE)
# JPEG, PNG, GIF and WebP in base64: what their first bytes become.
BASE64 = re.compile(r"\s*(?:[/_]9j[/_]|iVBORw0KGgo|R0lGOD|UklGR)[A-Za-z0-9+/_=\s-]{40}")
# Those of all other formats are told by what they decode to; two bytes, as a JXL may begin, can be chance.
BASE64_WORD = re.compile(r"\s*([A-Za-z0-9+/_-]{60})")
URL_SAFE = str.maketrans("-_", "+/")
# What a text's first word is where it is data: sentences have shorter ones.
ENCODED_WORD = re.compile(r"\s*\S{60}")
SVG = re.compile(r"\ufeff?\s*(?:<\?xml[^>]*>\s*|<!--.*?-->\s*|<!DOCTYPE\s+svg[^>]*>\s*)*<svg[\s>]", re.IGNORECASE | re.DOTALL)
LINK = re.compile(r"\s*(?:[a-z][a-z0-9+.-]{1,15}:)?//\S+\s*$", re.IGNORECASE)
PICTURE_LINK = re.compile(rf"\S*\.(?:{ENDINGS})(?![a-z0-9])", re.IGNORECASE)
PICTURE_NAME = re.compile(rf"[^\r\n]{{1,1000}}\.(?:{ENDINGS})\s*$", re.IGNORECASE)
# Longer strings are texts; data is told by its beginning.
LONGEST_NAME = 4096


class Kind(Enum):
    """In what form a picture stands in a column."""

    BYTES = "bytes"
    DATA = "base64"
    SVG = "svg"
    NAME = "name"
    LINK = "link"
    PIXELS = "pixels"
    ID = "id"


def kind_of(value: str | bytes) -> Kind | None:
    """What the value is by itself: a picture's bytes, its base64, a file's name, or a link to one."""
    if isinstance(value, bytes):
        if FIRST_BYTES.match(value):
            return Kind.BYTES
        # Some writers know no strings.
        value = value[:LONGEST_NAME].decode(errors="replace")
    if DATA_URI.match(value) or BASE64.match(value) or _is_base64(value):
        return Kind.DATA
    if SVG.match(value, 0, LONGEST_NAME):
        return Kind.SVG
    if len(value) >= LONGEST_NAME:
        return None
    if LINK.match(value):
        return Kind.LINK if PICTURE_LINK.match(value) else None
    return Kind.NAME if PICTURE_NAME.match(value) else None


def is_encoded(text: str) -> bool:
    """Whether a text is a picture in base64 or a data URI, and no sentence about one."""
    return ENCODED_WORD.match(text) is not None and kind_of(text) is Kind.DATA


def is_link(value: str | bytes) -> bool:
    """Whether the value is a URL, to whatever."""
    text = value[:LONGEST_NAME].decode(errors="replace") if isinstance(value, bytes) else value
    return len(text) < LONGEST_NAME and LINK.match(text) is not None


def _is_base64(value: str) -> bool:
    """Whether the value begins as the base64 of a picture does."""
    word = BASE64_WORD.match(value)
    start = base64.b64decode(word[1].translate(URL_SAFE)) if word else b""
    return FIRST_BYTES.match(start) is not None and not start.startswith(b"\xff\x0a")
