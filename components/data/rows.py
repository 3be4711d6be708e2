"""What does a file reader hand on? Raw rows: key, text and image as found, checked and converted later in one place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

KEY_FIELDS = ("key", "__key__", "id")
TEXT_FIELDS = ("text", "content")
CAPTION_FIELDS = ("caption", "text", "content", "TEXT")


class Row(NamedTuple):
    """One row of a corpus, unchecked.

    position: where it stands, for messages. text: str, UTF-8 bytes, or whatever stood there.
    image: an encoded image file. wants_image: whether a missing image is a fault.
    """

    position: str
    key: str
    text: object
    image: bytes | None
    wants_image: bool


def first_text(values: Any, fields: Sequence[str]) -> object:
    """The value of the first of `fields` that `values` has; None where there is none."""
    if not isinstance(values, dict):
        return None
    return next((values[field] for field in fields if values.get(field) is not None), None)
