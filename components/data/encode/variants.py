"""Views of an image that are encoded beside it, cropped and mirrored, for training to choose from.

Where the crops lie depends on the image's content alone, so neither order nor number of workers changes a byte.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np


class Views(NamedTuple):
    """What is encoded of each image."""

    flip: bool
    """Every view also mirrored left to right, which is wrong where images show text, digits or named sides."""
    crops: int
    """Squares cut out beside the whole image, each crop_share of its side, scaled back to its size."""
    crop_share: float

    @property
    def number(self) -> int:
        """Of all views, the image as it is among them."""
        return (1 + self.crops) * (1 + self.flip)


# The image as it is, and nothing else.
WHOLE = Views(flip=False, crops=0, crop_share=1.0)


def views_of(image: np.ndarray, views: Views) -> list[np.ndarray]:
    """uint8 [height, width, 3] -> views.number images of its size, the first of them the image itself."""
    found = [image]
    if views.crops:
        numbers = np.frombuffer(hashlib.shake_128(image.tobytes()).digest(16 * views.crops), "<u8").reshape(-1, 2)
        found += [_crop(image, views.crop_share, number.astype(np.float64) / 2.0**64) for number in numbers]
    return found + [np.ascontiguousarray(view[:, ::-1]) for view in found] if views.flip else found


def _crop(image: np.ndarray, share: float, where: np.ndarray) -> np.ndarray:
    """The part of `image` with `share` of its sides, `where` [2] of the way down and across, each in 0..1."""
    from PIL import Image

    size = np.array(image.shape[:2])
    kept = np.maximum(1, np.rint(share * size)).astype(int)
    top, left = np.minimum((where * (size - kept + 1)).astype(int), size - kept)
    part = Image.fromarray(image[top : top + kept[0], left : left + kept[1]])
    return np.asarray(part.resize((image.shape[1], image.shape[0]), Image.Resampling.LANCZOS))
