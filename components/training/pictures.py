"""How do a few small images become one PNG to look at? Enlarged grids."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from torch import Tensor

from components.runtime.files import write_bytes

GAP_PX = 4
SMALLEST_SIDE_PX = 96


def save_pairs(path: Path, above: Tensor, below: Tensor) -> None:
    """Each image over its counterpart, up to eight pairs a line; uint8 [N, height, width, 3] both."""
    lines = []
    for start in range(0, len(above), 8):
        lines += [above[start : start + 8], below[start : start + 8]]
    save_grid(path, lines)


def save_grid(path: Path, lines: list[Tensor]) -> None:
    """Lines of images, uint8 [N, height, width, 3] each, enlarged to at least SMALLEST_SIDE_PX, on white."""
    from PIL import Image

    side = lines[0].shape[1]
    scale = max(1, -(-SMALLEST_SIDE_PX // side))
    cell = side * scale + GAP_PX
    canvas = np.full((len(lines) * cell + GAP_PX, max(map(len, lines)) * cell + GAP_PX, 3), 255, np.uint8)
    for row, line in enumerate(lines):
        for column, image in enumerate(line.numpy()):
            top, left = row * cell + GAP_PX, column * cell + GAP_PX
            canvas[top : top + side * scale, left : left + side * scale] = image.repeat(scale, 0).repeat(scale, 1)
    buffer = io.BytesIO()
    Image.fromarray(canvas).save(buffer, format="PNG", optimize=True)
    write_bytes(path, buffer.getvalue())
