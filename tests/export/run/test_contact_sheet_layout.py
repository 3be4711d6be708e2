"""Where the contact sheet draws what: frames, lines of captions and colours, pixel by pixel, in the second row too."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from export.run.contact_sheet import Cell, contact_sheet

CELL_WIDTH, CELL_HEIGHT, COLUMNS, SIDE, EDGE, HEADING = 176, 236, 6, 144, 8, 24
BLUE, BLACK, WHITE, RED = (0x2F, 0x6F, 0xB2), (0x1A, 0x1A, 0x1A), (255, 255, 255), (255, 0, 0)


def drawn(cells: list[Cell]) -> np.ndarray:
    """The sheet below its heading."""
    sheet = np.asarray(Image.open(io.BytesIO(contact_sheet(cells))))
    assert (sheet[:HEADING] < 128).any() and (sheet[0] == 255).all()
    return sheet[HEADING:]


def red() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), "red").save(buffer, format="PNG")
    return buffer.getvalue()


def cell_of(sheet: np.ndarray, index: int) -> np.ndarray:
    row, column = divmod(index, COLUMNS)
    return sheet[row * CELL_HEIGHT : (row + 1) * CELL_HEIGHT, column * CELL_WIDTH : (column + 1) * CELL_WIDTH]


def expected(*, framed: bool) -> np.ndarray:
    """A cell without a caption."""
    cell = np.full((CELL_HEIGHT, CELL_WIDTH, 3), 255, np.uint8)
    if framed:
        cell[EDGE - 2 : EDGE + SIDE + 2, EDGE - 2 : EDGE + SIDE + 2] = BLUE
    cell[EDGE : EDGE + SIDE, EDGE : EDGE + SIDE] = RED
    return cell


def test_pictures_and_frames_lie_where_they_belong_in_every_row() -> None:
    sheet = drawn([Cell(red(), "", "caption" if index % 2 else "picture") for index in range(8)])
    assert sheet.shape == (2 * CELL_HEIGHT, COLUMNS * CELL_WIDTH, 3)
    for index in range(8):
        assert np.array_equal(cell_of(sheet, index), expected(framed=bool(index % 2))), index
    for index in range(8, 12):
        assert (cell_of(sheet, index) == 255).all()


def text_rows(cell: np.ndarray) -> list[int]:
    """Rows under the picture that hold ink."""
    under = cell[EDGE + SIDE + 2 :]
    return (np.flatnonzero((under != 255).any((1, 2))) + EDGE + SIDE + 2).tolist()


def test_a_caption_has_five_lines_of_26_characters_under_its_picture_and_says_where_it_is_cut() -> None:
    word = "i" * 26
    cells = [Cell(red(), " ".join([word] * number), "picture") for number in (1, 5, 6)]
    one, five, cut = (cell_of(drawn(cells), index) for index in range(3))
    (first, *_), (*_, last) = text_rows(one), text_rows(one)
    assert EDGE + SIDE + 6 <= first
    height = last - first + 1
    assert height < 12
    # Lines are 12 px apart and alike.
    for number in range(5):
        top = first + 12 * number
        assert np.array_equal(five[top : top + height], one[first : last + 1])
        assert np.array_equal(cut[top : top + height], one[first : last + 1]) == (number < 4)
    assert text_rows(five)[-1] == last + 48
    # The text begins at the picture's left edge.
    inked = np.flatnonzero((one[first : last + 1] != 255).any((0, 2)))
    assert EDGE <= inked[0] <= EDGE + 2


def test_what_was_given_is_blue() -> None:
    sheet = drawn([Cell(red(), "HHHHH", made) for made in ("picture", "caption")])
    for index, ink in enumerate((BLUE, BLACK)):
        under = cell_of(sheet, index)[EDGE + SIDE + 2 :].reshape(-1, 3)
        colours, counts = np.unique(under, axis=0, return_counts=True)
        inks = {tuple(colour): count for colour, count in zip(colours.tolist(), counts.tolist(), strict=True)}
        del inks[WHITE]
        # Smoothed edges are lighter; the darkest is next to the ink.
        assert np.abs(np.subtract(min(inks, key=sum), ink)).max() < 16, inks
