"""A few small images as one labelled PNG to look at: enlarged, each with its caption, in lines that say what they show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from core.files import write_bytes
from core.png import encode_png
from core.sheets import Layout, Tile, blank_sheet, draw_tiles, enlarged, wrapped

GAP_PX, LABEL_PX, LABEL_FONT_PX = 4, 20, 12
SMALLEST_SIDE_PX = 96
PAIRS_A_LINE, PICTURES_A_LINE = 8, 4
# Of a training's sheets, those that the report shows.
NUM_SHEETS = 6
LINE_PX, FONT_PX, CHARACTER_PX, NUM_CAPTION_LINES = 13, 11, 6, 4


def save_pairs(path: Path, above: Tensor, below: Tensor, labels: tuple[str, str]) -> None:
    """Each image over its counterpart, up to eight pairs a line; uint8 [N, height, width, 3] both. labels: of the two."""
    starts = range(0, len(above), PAIRS_A_LINE)
    parts = ((labels[0], above), (labels[1], below))
    lines = [(label, part[start : start + PAIRS_A_LINE]) for start in starts for label, part in parts]
    layout = _layout(above, PAIRS_A_LINE, SMALLEST_SIDE_PX)
    height = LABEL_PX + layout.tile[1]
    sheet = blank_sheet(min(PAIRS_A_LINE, len(above)) * layout.tile[0] + GAP_PX, len(lines) * height + GAP_PX)
    for row, (label, images) in enumerate(lines):
        top = row * height
        ImageDraw.Draw(sheet).text((GAP_PX, top + GAP_PX), label, fill="black", font=ImageFont.load_default(LABEL_FONT_PX))
        draw_tiles(sheet, _tiles(images, layout), layout, top + LABEL_PX)
    write_bytes(path, encode_png(np.asarray(sheet), smallest=True))


def sheet_name(step: int) -> str:
    """Of the file of images generated after so many steps; sorts by them."""
    return f"step-{step:08d}.png"


def over_training(sheets: Path, kept_step: int) -> list[Path]:
    """Of a folder of sheets by step the first, the last, that of kept_step, and some between, NUM_SHEETS at most."""
    files = sorted(sheets.glob("step-*.png"))
    places = np.linspace(0, len(files) - 1, min(len(files), NUM_SHEETS)).round().astype(int)
    kept = files.index(sheets / sheet_name(kept_step))
    if kept not in places:
        # In the place of the nearest that is neither the first nor the last.
        places[1 + np.abs(places[1:-1] - kept).argmin()] = kept
    return [files[place] for place in places]


def save_samples(path: Path, images: Tensor, prompts: Sequence[str]) -> None:
    """Each image over its prompt, four a line; uint8 [N, height, width, 3]."""
    layout = _layout(images, PICTURES_A_LINE, 2 * SMALLEST_SIDE_PX, NUM_CAPTION_LINES)
    num_lines = -(-len(images) // PICTURES_A_LINE)
    sheet = blank_sheet(min(PICTURES_A_LINE, len(images)) * layout.tile[0] + GAP_PX, num_lines * layout.tile[1] + GAP_PX)
    characters = layout.picture // CHARACTER_PX
    captions = [[(line, "black") for line in wrapped(prompt, characters, NUM_CAPTION_LINES)] for prompt in prompts]
    draw_tiles(sheet, _tiles(images, layout, captions), layout)
    write_bytes(path, encode_png(np.asarray(sheet), smallest=True))


def _layout(images: Tensor, columns: int, side_px: int, num_lines: int = 0) -> Layout:
    """Room for pictures enlarged to at least side_px, and for lines of text under each."""
    picture = images.shape[1] * max(1, -(-side_px // images.shape[1]))
    cell = picture + GAP_PX
    text = num_lines * LINE_PX + GAP_PX if num_lines else 0
    return Layout(columns, (cell, cell + text), (GAP_PX, GAP_PX), picture, gap=GAP_PX, line=LINE_PX, font=FONT_PX)


def _tiles(images: Tensor, layout: Layout, captions: Sequence[Sequence[tuple[str, str]]] = ()) -> list[Tile]:
    texts = captions or [()] * len(images)
    pairs = zip(images.numpy(), texts, strict=True)
    return [Tile(Image.fromarray(enlarged(image, layout.picture)), text) for image, text in pairs]
