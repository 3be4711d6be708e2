"""Two models compared on the same held-out items: the difference of one figure, with an interval, by a paired bootstrap.

Both figures are taken on the same resampled items each time, so that what makes an item easy or hard for both cancels out.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from components.evaluation.intervals import Items, interval, values_of
from components.evaluation.kept_items import KeptItems
from components.evaluation.metrics import OF_LATENTS, metric_of

# Of the resamples, so that a comparison comes out the same in every clone.
SEED = 0
MOST_NAMED = 3


class Gain(NamedTuple):
    """By how much one model is better than another in a figure; negative where it is worse."""

    value: float
    low: float
    high: float
    """Ends of the interval."""
    num_items: int


def why_apart(mine: KeptItems, theirs: KeptItems) -> str:
    """Why two evaluations cannot be compared, as a clause; "" where they can."""
    if mine.held_out != theirs.held_out:
        return f"on other held-out documents (digest {theirs.held_out[:8]}, and here {mine.held_out[:8]})"
    # A setting that one of them does not know came with a measurement that the other did not have.
    shared = sorted(mine.settings.keys() & theirs.settings.keys())
    differing = [name for name in shared if mine.settings[name] != theirs.settings[name]]
    if differing:
        said = [f"evaluate.{name} {theirs.settings[name]}, and here {mine.settings[name]}" for name in differing[:MOST_NAMED]]
        return f"with other settings ({'; '.join(said)})"
    return ""


def compares(key: str, mine: KeptItems, theirs: KeptItems) -> bool:
    """Whether the figure was measured item by item in both, and means the same in both."""
    measured = key in mine.items and key in theirs.items
    return measured and (not key.startswith(OF_LATENTS) or mine.latents == theirs.latents)


def gain(key: str, mine: Items, theirs: Items) -> Gain | None:
    """Of a key of METRICS. None where the items are not the same ones, or are fewer than two."""
    place = {name: at for at, name in enumerate(theirs.names)}
    if len(mine.names) != len(place) or set(mine.names) != set(place):
        return None
    order = np.array([place[name] for name in mine.names])
    paired = Items(mine.names, theirs.top[order], theirs.bottom[order])
    metric = metric_of(key)
    sign = -1.0 if metric is not None and metric.better == "lower" else 1.0
    found = interval(lambda drawn: sign * (values_of(mine, drawn) - values_of(paired, drawn)), len(mine.names), SEED)
    if found is None:
        return None
    everything = np.arange(len(mine.names))[None]
    value = sign * float((values_of(mine, everything) - values_of(paired, everything))[0])
    return Gain(value, found.low, found.high, found.num_items)
