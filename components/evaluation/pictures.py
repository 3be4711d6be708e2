"""Findings as pictures: the sample grid with its prompts, and the curves of training.

Legend: images are uint8 [side, side, 3].
"""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from components.evaluation.suite import Drawing
from core.png import encode_png
from core.sheets import Layout, Tile, blank_sheet, draw_tiles, enlarged

LAYOUT = Layout(columns=6, tile=(180, 252), margin=(8, 0), picture=128, gap=4, line=14, font=11)
HEADING_PX, HEADING_FONT_PX = 30, 15
CHARACTERS_PER_LINE = 30
# How the names of the history's columns of losses end; the other columns are rates.
LOSSES = ("loss", "text", "image")


def sample_grid(drawings: Sequence[Drawing]) -> bytes:
    """PNG of all drawings under their groups' headings, each with its prompt and what the judge read."""
    groups: dict[str, list[Drawing]] = {} if drawings else {"the corpora hold no captioned images to draw": []}
    for drawing in drawings:
        groups.setdefault(drawing.group, []).append(drawing)
    heights = {group: HEADING_PX - (-len(members) // LAYOUT.columns) * LAYOUT.tile[1] for group, members in groups.items()}
    sheet = blank_sheet(LAYOUT.columns * LAYOUT.tile[0], max(1, sum(heights.values())))
    top = 0
    for group, members in groups.items():
        ImageDraw.Draw(sheet).text((8, top + 7), group, fill="black", font=ImageFont.load_default(HEADING_FONT_PX))
        draw_tiles(sheet, [_tile(drawing) for drawing in members], LAYOUT, top + HEADING_PX)
        top += heights[group]
    return encode_png(np.asarray(sheet), smallest=True)


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


def _tile(drawing: Drawing) -> Tile:
    shown = Image.fromarray(enlarged(drawing.image, LAYOUT.picture))
    shown.thumbnail((LAYOUT.picture, LAYOUT.picture))
    lines = [(line, "black") for line in textwrap.wrap(drawing.prompt, CHARACTERS_PER_LINE)[:4]]
    if drawing.right is not None:
        verdict, colour = ("as asked", "green") if drawing.right else (f"read: {drawing.read}", "firebrick")
        lines += [(line, colour) for line in textwrap.wrap(verdict, CHARACTERS_PER_LINE)]
    return Tile(shown, lines[:8])
