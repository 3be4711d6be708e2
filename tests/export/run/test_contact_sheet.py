"""The contact sheet shows every picture as it is seen, with its caption under it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from export.run.contact_sheet import HEADING_PX, LAYOUT, Cell, contact_sheet
from tests.core.made_pictures import TURNS, encoded, quadrants

# Where the text under the first row begins.
EDGE = 2 * LAYOUT.margin[1] + LAYOUT.picture

# Middles of the upper left, upper right and lower left quarter of the first cell's picture.
QUARTERS = {(44, 44): (250, 0, 0), (44, 116): (0, 250, 0), (116, 44): (0, 0, 250)}


def _drawn(cells: list[Cell]) -> np.ndarray:
    """The sheet below its heading."""
    return np.asarray(Image.open(io.BytesIO(contact_sheet(cells))))[HEADING_PX:].astype(int)


@pytest.mark.parametrize("orientation", TURNS)
def test_given_pictures_stand_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(TURNS[orientation](np.asarray(quadrants()))))
    sheet = _drawn([Cell(encoded(stored, format="JPEG", exif=exif, quality=95), "four colours", "caption")])
    for at, colour in QUARTERS.items():
        assert np.abs(sheet[at] - colour).max() < 40, at


def test_pictures_of_any_form_fill_their_squares_and_rows_are_as_many_as_needed() -> None:
    sizes = [(9, 5), (300, 700), (144, 144)] * 3
    sheet = _drawn([Cell(encoded(Image.new("RGB", size, "red"), format="PNG"), "", "picture") for size in sizes])
    assert sheet.shape == (2 * LAYOUT.tile[1], LAYOUT.columns * LAYOUT.tile[0], 3)
    assert (sheet == (255, 0, 0)).all(-1).sum() == len(sizes) * LAYOUT.picture**2


def test_a_caption_is_drawn_and_a_described_picture_framed() -> None:
    white = encoded(Image.new("RGB", (16, 16), "white"), format="PNG")
    plain, captioned, framed = (
        _drawn([Cell(white, text, made)]) for text, made in (("", "picture"), ("a word", "picture"), ("", "caption"))
    )
    assert (plain == 255).all()
    assert (captioned[:EDGE] == 255).all() and (captioned[EDGE:] != 255).any()
    assert (framed[:EDGE] != 255).any() and (framed[EDGE:] == 255).all()
