"""A contact sheet: one PNG of every picture with its caption, generated ones and described ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from core.images import OWN_RULES, opened, upright
from core.png import encode_png
from core.png_chunks import strip_png
from core.sheets import Layout, Tile, blank_sheet, draw_tiles, wrapped

LAYOUT = Layout(columns=6, tile=(176, 236), margin=(8, 8), picture=144, gap=6, line=12)
LINE_CHARACTERS, NUM_TEXT_LINES = 26, 5
HEADING = "Blue is what was given: a prompt, whose picture the model drew, or a framed picture, whose caption it wrote"
HEADING_PX, HEADING_FONT_PX = 24, 12
INK, GIVEN, EMPTY = "#1a1a1a", "#2f6fb2", "#d0d0d0"


class Cell(NamedTuple):
    """A picture and the text under it."""

    picture: bytes
    """An encoded image's."""
    caption: str
    generated: str
    """Which of the two the model made: "picture" or "caption"."""


def contact_sheet(cells: Sequence[Cell]) -> bytes:
    """A PNG file's bytes: cells in reading order; what was given is blue, what the model made is black or framed."""
    num_rows = max(1, -(-len(cells) // LAYOUT.columns))
    sheet = blank_sheet(LAYOUT.columns * LAYOUT.tile[0], HEADING_PX + num_rows * LAYOUT.tile[1])
    ImageDraw.Draw(sheet).text((LAYOUT.margin[0], 6), HEADING, fill=INK, font=ImageFont.load_default(HEADING_FONT_PX))
    draw_tiles(sheet, [_tile(cell) for cell in cells], LAYOUT, HEADING_PX)
    return encode_png(np.asarray(sheet), smallest=True)


def _tile(cell: Cell) -> Tile:
    ink, frame = (GIVEN, "") if cell.generated == "picture" else (INK, GIVEN)
    lines = wrapped(cell.caption, LINE_CHARACTERS, NUM_TEXT_LINES)
    shown = [(line.encode("ascii", "replace").decode(), ink) for line in lines]
    return Tile(_square(cell.picture, LAYOUT.picture), shown, frame)


def _square(data: bytes, side_px: int) -> Image.Image:
    """The middle of the encoded image, upright; an empty frame for one that cannot be shown."""
    try:
        with opened(strip_png(data).data, OWN_RULES) as picture:
            # Nearest shows the pixels of small pictures as they are.
            method = Image.Resampling.NEAREST if min(picture.size) <= side_px else Image.Resampling.LANCZOS
            return ImageOps.fit(upright(picture, []).convert("RGB"), (side_px, side_px), method=method)
    except Exception:
        # Given pictures may have changed since they were answered; decoders raise almost anything on what is broken.
        return Image.new("RGB", (side_px, side_px), EMPTY)
