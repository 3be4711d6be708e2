"""Two evaluations beside each other: of each figure both values, their difference, and its interval where there is one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from components.evaluation.comparison import NO_ITEMS, gain, why_apart
from components.evaluation.intervals import LEVEL
from components.evaluation.kept_items import KeptItems
from components.evaluation.metrics import Metric, table

# Of fewer intervals none is to be expected that leaves 0 out by chance.
LEAST_BY_CHANCE = 10


class Evaluation(NamedTuple):
    """What an evaluation left."""

    name: str
    """As it was asked for."""
    about: str
    """What it is of, in a few words."""
    metrics: Mapping[str, float]
    """By the keys of METRICS."""
    kept: KeptItems | None
    why_none: str = ""
    """Why nothing was kept that it could be compared by, as what follows "since"."""


class Difference(NamedTuple):
    """A figure of two evaluations. The difference is the second less the first, as `dvc metrics diff` takes it."""

    key: str
    metric: Metric
    first: float | None
    second: float | None
    interval: tuple[float, float] | None
    """In which 95% of resamples of the items lie that both were measured on."""
    why_none: str
    """Why there is no interval, as a clause; "" where there is one."""

    @property
    def value(self) -> float | None:
        """None where one of the two has no such figure."""
        return None if self.first is None or self.second is None else self.second - self.first

    @property
    def verdict(self) -> Literal["better", "worse", ""]:
        """Of the second one; "" where resamples do not tell them apart."""
        low, high = self.interval or (0.0, 0.0)
        if low <= 0 <= high:
            return ""
        return "better" if (low > 0) == (self.metric.better == "higher") else "worse"


def differences(first: Evaluation, second: Evaluation) -> list[Difference]:
    """Of every figure that one of the two has, in the order of METRICS."""
    figures = table({**first.metrics, **second.metrics})
    return [_difference(figure.key, figure.metric, first, second) for figure in figures]


def reasons(found: Sequence[Difference]) -> dict[str, list[str]]:
    """Why figures have no interval -> their keys."""
    grouped: dict[str, list[str]] = {}
    for each in found:
        if each.why_none:
            grouped.setdefault(each.why_none, []).append(each.key)
    return grouped


def by_chance(found: Sequence[Difference]) -> str:
    """How many of these intervals are to be expected to leave 0 out where nothing differs, as a sentence; "" for few."""
    num = sum(each.interval is not None for each in found)
    if num < LEAST_BY_CHANCE:
        return ""
    wrong = max(1, round(num * (1 - LEVEL)))
    return f"Of {num} intervals about {wrong} leave{'s' if wrong == 1 else ''} 0 out by chance, where nothing differs."


def _difference(key: str, metric: Metric, first: Evaluation, second: Evaluation) -> Difference:
    values = (first.metrics.get(key), second.metrics.get(key))
    why = next(_whys(key, metric, first, second), "")
    if why or first.kept is None or second.kept is None:
        return Difference(key, metric, *values, None, why)
    found = gain(key, second.kept.items[key], first.kept.items[key])
    # Taken from 0, so that no zero has a minus.
    ends = (found.low, found.high) if metric.better == "higher" else (0.0 - found.high, 0.0 - found.low)
    return Difference(key, metric, *values, ends, "")


def _whys(key: str, metric: Metric, first: Evaluation, second: Evaluation) -> Iterator[str]:
    for one in (first, second):
        if key not in one.metrics:
            yield f"not measured in {one.name}"
    for one in (first, second):
        if one.kept is None:
            yield f"{one.name} has no items to compare by, since {one.why_none}"
    if not metric.compares and any(one.kept and key in one.kept.items for one in (first, second)):
        yield "not a figure to compare models by"
    if first.kept and second.kept and (why := why_apart(key, second.kept, first.kept)):
        yield f"measured {why} in {first.name}" if why != NO_ITEMS else "not measured item by item"
