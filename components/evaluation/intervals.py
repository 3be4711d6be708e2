"""Confidence intervals of figures that are measured item by item, by resampling the items.

A figure here is a ratio of two sums over items (documents, prompts): right over counted, bits over bytes, errors over numbers.
Its items are kept, so that two models measured on the same ones can be compared pair by pair.

Legend: N items, R resamples.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.random import generator

LEVEL = 0.95
NUM_RESAMPLES = 2000
# Of the generator's key: the resamples of every figure are the same, so that figures of the same items move together.
STREAM = 77
# Resamples taken at once: 100 of 4,096 items are 3 MB.
AT_ONCE = 100
ITEMS_SCHEMA = pa.schema([("figure", pa.string()), ("item", pa.string()), ("top", pa.float64()), ("bottom", pa.float64())])


class Interval(NamedTuple):
    """Where a figure lies in LEVEL of the resamples: percentiles, so that it holds for any shape of distribution.

    Where every item came out alike it has no width, which is no certainty.
    """

    low: float
    high: float
    num_items: int


@dataclass(frozen=True)
class Items:
    """What a figure was measured on, one entry an item: its value is sum(top) / sum(bottom)."""

    names: tuple[str, ...]
    """The same for the same item in every evaluation, and differing within one."""
    top: np.ndarray
    bottom: np.ndarray
    """float64 [N] each."""

    @property
    def value(self) -> float:
        """The figure. ZeroDivisionError where nothing is counted."""
        return float(self.top.sum()) / float(self.bottom.sum())


def items_of(names: Sequence[str], top: Sequence[float] | np.ndarray, bottom: Sequence[float] | np.ndarray) -> Items:
    """Items of plain numbers. ValueError where the three differ in length."""
    made = Items(tuple(names), np.asarray(top, np.float64), np.asarray(bottom, np.float64))
    if not len(made.names) == len(made.top) == len(made.bottom):
        raise ValueError(f"{len(made.names)} names, {len(made.top)} and {len(made.bottom)} numbers: one of each an item")
    return made


def interval_of(items: Items, seed: int) -> Interval | None:
    """Of a ratio of sums; None where one item alone tells nothing of others."""
    return interval(lambda indices: values_of(items, indices), len(items.names), seed)


def values_of(items: Items, indices: np.ndarray) -> np.ndarray:
    """The figure of each resample. indices: of items, int64 [R, N] -> float64 [R]."""
    return items.top[indices].sum(-1) / np.maximum(items.bottom[indices].sum(-1), np.finfo(np.float64).tiny)


def interval(
    figure: Callable[[np.ndarray], np.ndarray], num_items: int, seed: int, num_resamples: int = NUM_RESAMPLES
) -> Interval | None:
    """Of any figure. figure: indices of items, int64 [R, N], -> values [R]. None where there are fewer than two items."""
    if num_items < 2:
        return None
    values = np.concatenate([figure(indices) for indices in resamples(num_items, seed, num_resamples)])
    return Interval(*ends_of(values), num_items)


def ends_of(values: np.ndarray) -> tuple[float, float]:
    """Between which LEVEL of the resamples' values [R] lie."""
    low, high = np.percentile(values, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


def resamples(num_items: int, seed: int, num_resamples: int = NUM_RESAMPLES) -> Iterator[np.ndarray]:
    """Random indices with replacement, int64 [at most AT_ONCE, N] at a time; the same for the same seed and number of items."""
    rng = generator(seed, STREAM)
    for start in range(0, num_resamples, AT_ONCE):
        yield rng.integers(num_items, size=(min(AT_ONCE, num_resamples - start), num_items))


def items_file(items: dict[str, Items]) -> bytes:
    """Parquet of figure, item, top, bottom: a row an item of a figure."""
    columns: dict[str, list[Any]] = {"figure": [], "item": [], "top": [], "bottom": []}
    for figure, each in sorted(items.items()):
        columns["figure"] += [figure] * len(each.names)
        for name, values in (("item", each.names), ("top", each.top.tolist()), ("bottom", each.bottom.tolist())):
            columns[name] += values
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, schema=ITEMS_SCHEMA), buffer, compression="zstd")
    return buffer.getvalue()


def items_from(file: bytes) -> dict[str, Items]:
    """What `items_file` was made of."""
    grouped = pq.read_table(io.BytesIO(file)).to_pandas().groupby("figure")
    return {
        str(figure): items_of(list(rows["item"]), rows["top"].to_numpy(), rows["bottom"].to_numpy()) for figure, rows in grouped
    }


def as_rows(intervals: dict[str, Interval]) -> dict[str, dict[str, Any]]:
    """For reports/evaluate/intervals.json: of each figure its interval, by name, sorted."""
    return {key: intervals[key]._asdict() for key in sorted(intervals)}
