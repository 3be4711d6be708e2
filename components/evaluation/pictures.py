"""Results as a picture: the sample grid with its prompts.

Legend: images are uint8 [side, side, 3].
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from components.evaluation.results import GeneratedImage
from core.png import encode_png
from core.sheets import Layout, Tile, blank_sheet, draw_tiles, enlarged, wrapped

LAYOUT = Layout(columns=6, tile=(180, 252), margin=(8, 0), picture=128, gap=4, line=14, font=11)
HEADING_PX, HEADING_FONT_PX = 30, 15
CHARACTERS_PER_LINE, NUM_PROMPT_LINES, NUM_LINES = 30, 4, 8


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


def _tile(entry: GeneratedImage) -> Tile:
    shown = Image.fromarray(enlarged(entry.image, LAYOUT.picture))
    shown.thumbnail((LAYOUT.picture, LAYOUT.picture))
    lines = [(line, "black") for line in wrapped(entry.prompt, CHARACTERS_PER_LINE, NUM_PROMPT_LINES)]
    if entry.right is not None:
        outcome, colour = ("as asked", "green") if entry.right else (f"read: {entry.read}", "firebrick")
        lines += [(line, colour) for line in wrapped(outcome, CHARACTERS_PER_LINE, NUM_LINES - len(lines))]
    return Tile(shown, lines)
