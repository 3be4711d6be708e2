"""What a section of the page is made of; templates/blocks.html draws each kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from markupsafe import Markup

from components.report.charts import Chart


class Text:
    """A paragraph. Plain text is escaped; `code` makes what is not."""

    kind: ClassVar = "text"

    def __init__(self, text: str) -> None:
        self.text = text


class Column(NamedTuple):
    """A column's heading. number: whether its cells are numbers, which stand at the right."""

    name: str
    number: bool = False


class Cell(NamedTuple):
    """A cell of two lines: what it says, and below in small letters what that means. tone: "good", "bad" or ""."""

    text: str
    below: str = ""
    tone: str = ""


class Table:
    """Rows of cells, each text or a Cell; the first cell heads its row."""

    kind: ClassVar = "table"

    def __init__(self, name: str, columns: Sequence[Column], rows: Sequence[Sequence[str | Cell]]) -> None:
        self.name, self.columns = name, columns
        self.rows = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]


class Charts:
    """Charts side by side."""

    kind: ClassVar = "charts"

    def __init__(self, charts: Sequence[Chart | None]) -> None:
        self.charts = [chart for chart in charts if chart is not None]


class Line(NamedTuple):
    """A line under a picture. label: small words before it. tone: as of a Cell."""

    text: str
    label: str = ""
    tone: str = ""


class Picture(NamedTuple):
    """uri: with the picture's bytes in it. alt: what it shows."""

    uri: str
    alt: str


class Shown(NamedTuple):
    """Pictures that belong together, side by side, and lines under them."""

    pictures: Sequence[Picture]
    lines: Sequence[Line]


class Gallery:
    """Small pictures in a grid. look: "pairs" of pictures, lines "beside" their picture, or "" for pictures over lines."""

    kind: ClassVar = "gallery"

    def __init__(self, entries: Sequence[Shown], look: str = "") -> None:
        self.entries = entries
        self.look = look or ("pairs" if any(len(entry.pictures) > 1 for entry in entries) else "")


class Sheets:
    """Large pictures, each under a heading of its own."""

    kind: ClassVar = "sheets"

    def __init__(self, sheets: Sequence[tuple[str, Picture]]) -> None:
        self.sheets = sheets


class Items:
    """A list. tone: as of a Cell."""

    kind: ClassVar = "items"

    def __init__(self, lines: Sequence[Line]) -> None:
        self.lines = lines


class More:
    """Blocks that a reader opens."""

    kind: ClassVar = "more"

    def __init__(self, summary: str, blocks: Sequence[Any]) -> None:
        self.summary, self.blocks = summary, blocks


class Heading:
    """Of a part of a section."""

    kind: ClassVar = "heading"

    def __init__(self, text: str) -> None:
        self.text = text


class Section(NamedTuple):
    """key: its address in the page. title: a few words, the navigation's too."""

    key: str
    title: str
    blocks: Sequence[Any]


def code(text: str) -> Markup:
    """Text as code, escaped."""
    return Markup("<code>{}</code>").format(text)


def sentence(*parts: str) -> Markup:
    """Parts one after the other, each escaped unless it is `code`."""
    return Markup("").join(parts)
