"""Results as pictures: the sample grid with its prompts, and the curves of training.

Legend: images are uint8 [side, side, 3].
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from components.evaluation.results import GeneratedImage
from core.png import encode_png
from core.sheets import Layout, Tile, blank_sheet, draw_tiles, enlarged, wrapped

LAYOUT = Layout(columns=6, tile=(180, 252), margin=(8, 0), picture=128, gap=4, line=14, font=11)
HEADING_PX, HEADING_FONT_PX = 30, 15
CHARACTERS_PER_LINE, NUM_PROMPT_LINES, NUM_LINES = 30, 4, 8
# Columns of the tables of training, and what each is; a solid line while training, a dashed one held out.
CURVES = {
    "text_after_image": "text after images, nats a token",
    "text_elsewhere": "other text, nats a token",
    "image": "image, squared error",
}
STYLES = {"history.csv": ("training", "-"), "validation.csv": ("held out", "--")}


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


def curves(folder: Path) -> bytes | None:
    """PNG of the losses in a training's tables over steps; None where the folder has none of them, or none of their columns.

    What compares between training and held-out documents is drawn, and not the weighted sums.
    """
    lines = [(*style, name, points) for file, style in STYLES.items() for name, points in _points(folder / file)]
    if not lines:
        return None
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 3.6), layout="constrained")
    for split, line, name, points in lines:
        marker, colour = "" if len(points) > 20 else ".", f"C{list(CURVES).index(name)}"
        label = f"{CURVES[name]} ({split})"
        axes.plot(*zip(*points, strict=True), line, label=label, color=colour, linewidth=1.2, marker=marker)
    axes.set(xlabel="optimiser step", ylabel="loss", yscale="log")
    # Beside the curves, where it covers none.
    figure.legend(loc="outside right upper", fontsize=8)
    axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    pyplot.close(figure)
    return buffer.getvalue()


def _points(table: Path) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    """Of each curve in the table its column and its points."""
    columns = read_history(table)
    steps = columns.get("step", [])
    for name in filter(columns.__contains__, CURVES):
        pairs = zip(steps, columns[name], strict=True)
        yield name, [(step, value) for step, value in pairs if step is not None and value is not None]


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
    lines = [(line, "black") for line in wrapped(entry.prompt, CHARACTERS_PER_LINE, NUM_PROMPT_LINES)]
    if entry.right is not None:
        outcome, colour = ("as asked", "green") if entry.right else (f"read: {entry.read}", "firebrick")
        lines += [(line, colour) for line in wrapped(outcome, CHARACTERS_PER_LINE, NUM_LINES - len(lines))]
    return Tile(shown, lines)
