"""Line charts as shapes of an SVG, which templates/blocks.html draws: small enough that their letters are read on a phone.

Positions are in the SVG's own units: WIDTH across, HEIGHT down.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from components.report.numbers import number, written

WIDTH, HEIGHT = 340, 210
LEFT, RIGHT, TOP, BOTTOM = 46, 16, 20, 36
# A longer curve is drawn by every so many-th of its points, and its table has as many rows.
MOST_POINTS, MOST_ROWS = 400, 40
# Single points are marked where they are few.
FEW_POINTS = 12
NUM_TICKS = 5

Point = tuple[float, float]
Kept = TypeVar("Kept")


class Series(NamedTuple):
    """A curve. spans: of each point the interval around it, None where it has none. colour: its number of the palette."""

    name: str
    points: Sequence[Point]
    spans: Sequence[Point | None] = ()
    colour: int = 0
    dashed: bool = False


class Curve(NamedTuple):
    """A series as shapes. path: of an SVG's polyline. dots: of few points. spans: (x, upper, lower) of intervals."""

    name: str
    colour: int
    dashed: bool
    path: str
    dots: list[Point]
    spans: list[tuple[float, float, float]]


class Tick(NamedTuple):
    """A place on an axis, and its label."""

    at: float
    label: str


class Chart(NamedTuple):
    """All that the template needs. mark: a place across that is named, with its name. rows: the numbers, the heading first.
    log: whether the axis upwards is logarithmic."""

    title: str
    x_label: str
    curves: list[Curve]
    across: list[Tick]
    up: list[Tick]
    mark: Tick | None
    rows: list[list[str]]
    alt: str
    log: bool
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def chart(
    title: str, x_label: str, series: Sequence[Series], *, log: bool = False, mark: tuple[float, str] | None = None
) -> Chart | None:
    """Series over one axis; None where none has a finite point. log: the axis upwards, where all values let it."""
    drawn = [each for each in map(_finite, series) if each.points]
    if not drawn:
        return None
    xs = [x for each in drawn for x, _ in each.points] + ([mark[0]] if mark else [])
    ys = [y for each in drawn for _, y in each.points] + [end for each in drawn for span in each.spans if span for end in span]
    x, across = _axis(xs, LEFT, WIDTH - RIGHT, tight=True)
    log = log and min(ys) > 0
    y, up = _axis(ys, HEIGHT - BOTTOM, TOP, log=log)
    marked = Tick(x(mark[0]), mark[1]) if mark else None
    curves = [_curve(each, x, y) for each in drawn]
    return Chart(title, x_label, curves, across, up, marked, _rows(x_label, drawn), _alt(title, drawn), log)


def _finite(series: Series) -> Series:
    """Without what is no number, and of a long series every so many-th point and the last."""
    spans = series.spans or [None] * len(series.points)
    kept = [(point, span) for point, span in zip(series.points, spans, strict=True) if all(map(math.isfinite, point))]
    kept = _thinned(kept, MOST_POINTS)
    return series._replace(points=[point for point, _ in kept], spans=[span for _, span in kept])


def _thinned(values: Sequence[Kept], most: int) -> list[Kept]:
    step = max(1, math.ceil(len(values) / most))
    # Backwards, so that the last one is among them.
    return list(values[::-step])[::-1]


def _axis(
    values: Sequence[float], start: float, end: float, *, log: bool = False, tight: bool = False
) -> tuple[Callable[[float], float], list[Tick]]:
    """A scale from values to positions between start and end, and its ticks. tight: it ends where the values do."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    low, high = min(values), max(values)
    if low == high:
        low, high = (low / 2, high * 2) if log else (low - 0.5, high + 0.5)
    elif not (log or tight):
        low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)
    if log:
        # Over few decades the powers of ten alone would be few ticks.
        found = LogLocator(subs=(1, 2, 5) if high / low < 1000 else (1,)).tick_values(low, high)
    else:
        found = MaxNLocator(NUM_TICKS).tick_values(low, high)
    of: Callable[[float], float] = math.log if log else float

    def position(value: float) -> float:
        return round(start + (of(value) - of(low)) / (of(high) - of(low)) * (end - start), 1)

    return position, [Tick(position(value), number(float(f"{value:.6g}"))) for value in found if low <= value <= high]


def _curve(series: Series, x: Callable[[float], float], y: Callable[[float], float]) -> Curve:
    places = [(x(across), y(up)) for across, up in series.points]
    spans = [(place[0], y(span[1]), y(span[0])) for place, span in zip(places, series.spans, strict=True) if span]
    path = " ".join(f"{across:g},{up:g}" for across, up in places)
    return Curve(series.name, series.colour, series.dashed, path, places if len(places) <= FEW_POINTS else [], spans)


def _rows(x_label: str, series: Sequence[Series]) -> list[list[str]]:
    """The numbers as a table: what is across, and each series."""
    by_x = [dict(each.points) for each in series]
    spans = [dict(zip((x for x, _ in each.points), each.spans, strict=True)) for each in series]
    rows = [[x_label, *(each.name for each in series)]]
    for x in _thinned(sorted({x for points in by_x for x in points}), MOST_ROWS):
        cells = [_cell(points.get(x), intervals.get(x)) for points, intervals in zip(by_x, spans, strict=True)]
        rows.append([number(x), *cells])
    return rows


def _cell(value: float | None, span: Point | None) -> str:
    if value is None:
        return ""
    return written(value) + (f" ({written(span[0])} to {written(span[1])})" if span else "")


def _alt(title: str, series: Sequence[Series]) -> str:
    ends = (f"{each.name} from {written(each.points[0][1])} to {written(each.points[-1][1])}" for each in series)
    return f"{title}: {'; '.join(ends)}"
