"""How are findings shown as pictures? The sample grid with its prompts, and the curves of training.

Legend: images are uint8 [side, side, 3].
"""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from components.evaluation.suite import Drawing

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

SHOWN_SIDE_PX = 128
TILE_PX = (180, 252)
HEADING_PX = 30
COLUMNS = 6
FONT_PX = 11
CHARACTERS_PER_LINE = 30
# How the names of the history's columns of losses end; the other columns are rates.
LOSSES = ("loss", "text", "image")


def sample_grid(drawings: Sequence[Drawing]) -> bytes:
    """PNG of all drawings under their groups' headings, each with its prompt and what the judge read."""
    from PIL import Image, ImageDraw

    groups: dict[str, list[Drawing]] = {} if drawings else {"the corpora hold no captioned images to draw": []}
    for drawing in drawings:
        groups.setdefault(drawing.group, []).append(drawing)
    heights = {group: HEADING_PX - (-len(members) // COLUMNS) * TILE_PX[1] for group, members in groups.items()}
    sheet = Image.new("RGB", (COLUMNS * TILE_PX[0], max(1, sum(heights.values()))), "white")
    pen = ImageDraw.Draw(sheet)
    top = 0
    for group, members in groups.items():
        pen.text((8, top + 7), group, fill="black", font=_font(15))
        for number, drawing in enumerate(members):
            row, column = divmod(number, COLUMNS)
            _tile(sheet, pen, drawing, column * TILE_PX[0] + 8, top + HEADING_PX + row * TILE_PX[1])
        top += heights[group]
    return encode(np.asarray(sheet))


def enlarge(image: np.ndarray, side_px: int = SHOWN_SIDE_PX) -> np.ndarray:
    """The image scaled up by a whole factor, every pixel a square; larger images stay as they are."""
    factor = max(1, side_px // image.shape[0])
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def encode(image: np.ndarray) -> bytes:
    """PNG bytes."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def curves(history: Path) -> bytes | None:
    """PNG of the losses in a training's history.csv over steps; None without such a file or columns."""
    columns = read_history(history)
    steps = columns.pop("step", [])
    losses = {name: values for name, values in columns.items() if name.endswith(LOSSES) and set(values) != {None}}
    if not steps or not losses:
        return None
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.2), layout="constrained")
    for name, values in losses.items():
        points = [(step, value) for step, value in zip(steps, values, strict=True) if value is not None and step is not None]
        axes.plot(*zip(*points, strict=True), label=name, linewidth=1.2, marker="" if len(points) > 20 else ".")
    axes.set(xlabel="optimiser step", ylabel="loss", yscale="log")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    pyplot.close(figure)
    return buffer.getvalue()


def read_history(path: Path) -> dict[str, list[float | None]]:
    """Columns of a CSV with a heading line; an empty cell is None, a missing file has no columns."""
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = list(rows[0]) if rows else []
    return {name: [float(row[name]) if row[name] else None for row in rows] for name in names}


def _tile(sheet: Image.Image, pen: ImageDraw.ImageDraw, drawing: Drawing, left: int, top: int) -> None:
    from PIL import Image

    shown = Image.fromarray(enlarge(drawing.image))
    shown.thumbnail((SHOWN_SIDE_PX, SHOWN_SIDE_PX))
    sheet.paste(shown, (left, top))
    lines = [(line, "black") for line in textwrap.wrap(drawing.prompt, CHARACTERS_PER_LINE)[:4]]
    if drawing.right is not None:
        verdict, colour = ("as asked", "green") if drawing.right else (f"read: {drawing.read}", "firebrick")
        lines += [(line, colour) for line in textwrap.wrap(verdict, CHARACTERS_PER_LINE)]
    for number, (line, colour) in enumerate(lines[:8]):
        pen.text((left, top + SHOWN_SIDE_PX + 4 + number * (FONT_PX + 3)), line, fill=colour, font=_font(FONT_PX))


def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size_px)
