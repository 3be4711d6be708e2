"""A request's picture to pixels, prepared as the corpus's were, and generated pixels to files.

Legend: N images; pixels are float [N, 3, height, width] in -1..1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.images import ImageRules, prepare_pixels
from core.png import encode_png
from model.latents.autoencoder import to_images, to_pixels


def read_pixels(data: bytes, side_px: int, rules: ImageRules) -> Tensor:
    """An encoded image's bytes -> pixels [1, 3, side, side], its centre square; raises ImageError with one sentence."""
    return to_pixels(torch.from_numpy(prepare_pixels(data, side_px, rules).pixels.copy())[None])


def write_pngs(pixels: Tensor) -> list[bytes]:
    """Pixels [N, 3, height, width] -> one PNG file's bytes an image."""
    return [encode_png(image) for image in to_images(pixels).numpy()]
