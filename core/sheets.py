"""Pictures in a grid on one sheet, each with lines of text under it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FRAME_PX = 2


class Tile(NamedTuple):
    """picture: at its size on the sheet. lines: (text, colour) under it. frame: colour of a frame around it, "" for none."""

    picture: Image.Image
    lines: Sequence[tuple[str, str]] = ()
    frame: str = ""


class Layout(NamedTuple):
    """Sizes in pixels. picture: side of the square above the lines. gap: between the two. line: from one to the next."""

    columns: int
    tile: tuple[int, int]
    margin: tuple[int, int]
    picture: int
    gap: int = 0
    line: int = 0
    font: int = 10


def wrapped(text: str, characters: int, num_lines: int) -> list[str]:
    """Lines of at most so many characters; where not all fit, the last one ends in an ellipsis."""
    return textwrap.wrap(text, characters, max_lines=num_lines, placeholder=" ...")


def blank_sheet(width: int, height: int) -> Image.Image:
    """A white sheet."""
    return Image.new("RGB", (width, height), "white")


def enlarged(pixels: np.ndarray, side_px: int) -> np.ndarray:
    """uint8 [height, width, 3] scaled up by the whole factor that side_px has room for; larger ones stay as they are."""
    factor = max(1, side_px // pixels.shape[0])
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def draw_tiles(sheet: Image.Image, tiles: Sequence[Tile], layout: Layout, top: int = 0) -> None:
    """Draw in reading order, `top` pixels below the upper edge."""
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(layout.font)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, layout.columns)
        left = column * layout.tile[0] + layout.margin[0]
        upper = top + row * layout.tile[1] + layout.margin[1]
        sheet.paste(tile.picture, (left, upper))
        if tile.frame:
            box = (left - FRAME_PX, upper - FRAME_PX, left + layout.picture + 1, upper + layout.picture + 1)
            pen.rectangle(box, outline=tile.frame, width=FRAME_PX)
        for index, (line, ink) in enumerate(tile.lines):
            pen.text((left, upper + layout.picture + layout.gap + index * layout.line), line, fill=ink, font=font)
