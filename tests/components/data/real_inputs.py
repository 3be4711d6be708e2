"""The shape of one real input (what is written, and what must come of it), and the pictures and words that stand in it."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Case:
    """One input as people have it. `documents + rejected` (and duplicates) are what the file holds, not what a reader kept."""

    name: str
    make: Callable[[Path], dict[str, Any]]
    """Writes the input into the folder and returns the keys of its corpus entry: format, path, images, ..."""
    documents: int = 0
    images: int = 0
    rejected: int = 0
    says: str = ""
    """A pattern of one rejected record's reason, or of a note that the stage counts; "" where nothing is said."""
    texts: str = ""
    """A pattern of every document's text, where the words themselves could be misread."""
    refused: str = ""
    """A pattern of the sentence that refuses the whole; "" where the corpus is read."""


def noise(number: int) -> Image.Image:
    """A picture that no other number has."""
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (24, 32, 3), np.uint8))


@functools.cache
def encoded(number: int, format: str = "JPEG") -> bytes:
    """The same as a file."""
    buffer = io.BytesIO()
    noise(number).save(buffer, format)
    return buffer.getvalue()


def words(number: int) -> str:
    return f"a picture numbered {number} with some words"
