"""What came out, at a glance: one PNG of every picture with its caption, generated ones and described ones."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from export.pictures import FORMATS, upright
from export.png_chunks import strip_png

if TYPE_CHECKING:
    from PIL import Image

CELL_WIDTH_PX, PICTURE_PX, TEXT_PX, NUM_COLUMNS = 176, 160, 64, 6
LINE_CHARACTERS, NUM_TEXT_LINES, LINE_PX = 24, 4, 12
INK, PAPER, GIVEN, EMPTY = "#1a1a1a", "#ffffff", "#2f6fb2", "#d0d0d0"


class Cell(NamedTuple):
    """picture: an encoded image's bytes. caption: the text under it. generated: which of the two the model made."""

    picture: bytes
    caption: str
    generated: str  # "picture" or "caption"


def contact_sheet(cells: Sequence[Cell]) -> bytes:
    """A PNG file's bytes: cells in reading order; what was given is blue, what the model made is black or framed."""
    from PIL import Image, ImageDraw

    num_rows = max(1, -(-len(cells) // NUM_COLUMNS))
    height = PICTURE_PX + TEXT_PX
    sheet = Image.new("RGB", (NUM_COLUMNS * CELL_WIDTH_PX, num_rows * height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, cell in enumerate(cells):
        left, top = index % NUM_COLUMNS * CELL_WIDTH_PX + 8, index // NUM_COLUMNS * height + 8
        side = PICTURE_PX - 16
        sheet.paste(_square(cell.picture, side), (left, top))
        if cell.generated == "caption":
            draw.rectangle((left - 2, top - 2, left + side + 1, top + side + 1), outline=GIVEN, width=2)
        lines = textwrap.wrap(cell.caption, LINE_CHARACTERS)[:NUM_TEXT_LINES]
        for number, line in enumerate(lines):
            ink = GIVEN if cell.generated == "picture" else INK
            draw.text((left, top + side + 6 + number * LINE_PX), line.encode("ascii", "replace").decode(), fill=ink)
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _square(data: bytes, side_px: int) -> Image.Image:
    """The middle of the encoded image, upright; an empty frame for one that cannot be shown."""
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(strip_png(data).data), formats=FORMATS) as picture:
            # Nearest shows the pixels of small pictures as they are.
            method = Image.Resampling.NEAREST if min(picture.size) <= side_px else Image.Resampling.LANCZOS
            return ImageOps.fit(upright(picture).convert("RGB"), (side_px, side_px), method=method)
    except Exception:
        # Given pictures may have changed since they were answered; decoders raise almost anything on what is broken.
        return Image.new("RGB", (side_px, side_px), EMPTY)
