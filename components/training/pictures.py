"""A few small images as one PNG to look at: enlarged grids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from core.files import write_bytes
from core.png import encode_png
from core.sheets import Layout, Tile, blank_sheet, draw_tiles, enlarged

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
    side = lines[0].shape[1]
    factor = max(1, -(-SMALLEST_SIDE_PX // side))
    cell, columns = side * factor + GAP_PX, max(map(len, lines))
    layout = Layout(columns, (cell, cell), (GAP_PX, GAP_PX), side * factor)
    sheet = blank_sheet(columns * cell + GAP_PX, len(lines) * cell + GAP_PX)
    for row, line in enumerate(lines):
        tiles = [Tile(Image.fromarray(enlarged(image, layout.picture))) for image in line.numpy()]
        draw_tiles(sheet, tiles, layout, row * cell)
    write_bytes(path, encode_png(np.asarray(sheet), smallest=True))
