"""Results as pictures: the sample grid with its prompts, and the curves of training.

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

from components.evaluation.suite import GeneratedImage
from core.png import encode_png
from core.sheets import Layout, Tile, blank_sheet, draw_tiles, enlarged

LAYOUT = Layout(columns=6, tile=(180, 252), margin=(8, 0), picture=128, gap=4, line=14, font=11)
HEADING_PX, HEADING_FONT_PX = 30, 15
CHARACTERS_PER_LINE = 30
# How the names of the history's columns of losses end; the other columns are rates.
LOSSES = ("loss", "text", "image")


def sample_grid(generated: Sequence[GeneratedImage]) -> bytes:
    """PNG of all generated images under their groups' headings, each with its prompt and what the classifier read."""
    groups: dict[str, list[GeneratedImage]] = {} if generated else {"the corpora hold no captioned images to generate from": []}
    for entry in generated:
        groups.setdefault(entry.group, []).append(entry)
    heights = {group: HEADING_PX - (-len(members) // LAYOUT.columns) * LAYOUT.tile[1] for group, members in groups.items()}
    sheet = blank_sheet(LAYOUT.columns * LAYOUT.tile[0], max(1, sum(heights.values())))
    top = 0
    for group, members in groups.items():
        ImageDraw.Draw(sheet).text((8, top + 7), group, fill="black", font=ImageFont.load_default(HEADING_FONT_PX))
        draw_tiles(sheet, [_tile(entry) for entry in members], LAYOUT, top + HEADING_PX)
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


def _tile(entry: GeneratedImage) -> Tile:
    shown = Image.fromarray(enlarged(entry.image, LAYOUT.picture))
    shown.thumbnail((LAYOUT.picture, LAYOUT.picture))
    lines = [(line, "black") for line in textwrap.wrap(entry.prompt, CHARACTERS_PER_LINE)[:4]]
    if entry.right is not None:
        outcome, colour = ("as asked", "green") if entry.right else (f"read: {entry.read}", "firebrick")
        lines += [(line, colour) for line in textwrap.wrap(outcome, CHARACTERS_PER_LINE)]
    return Tile(shown, lines[:8])
