"""Two models compared on the same held-out items: the difference of one figure, with an interval, by a paired bootstrap.

Both figures are taken on the same resampled items each time, so that what makes an item easy or hard for both cancels out.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from components.evaluation.intervals import Items, interval, values_of
from components.evaluation.kept_items import KeptItems
from components.evaluation.metrics import OF_FEATURES, OF_LATENTS, OF_TARGETS, metric_of, settings_behind
from core.metric_keys import GENERATED_FOR

# Of the resamples, so that a comparison comes out the same in every clone.
SEED = 0
MOST_NAMED = 3
NO_ITEMS = "not item by item"
# Measured beside the training pictures, by their latents.
BESIDE_TRAINING = ("memorisation/",)
# Read by a classifier of the training scenes' digits.
OF_CLASSIFIER = ("text_to_image/", "composition", "guidance/objects_right/")


class Gain(NamedTuple):
    """By how much one model is better than another in a figure; negative where it is worse."""

    value: float
    low: float
    high: float
    """Ends of the interval."""
    num_items: int


def why_apart(key: str, mine: KeptItems, theirs: KeptItems) -> str:
    """Why a figure of two evaluations cannot be compared item by item, as what follows "measured"; "" where it can be.

    Which items there are depends on many settings, and their names tell; so only those settings count that decide how an item
    of this figure is asked and judged.
    """
    if key not in mine.items and key not in theirs.items:
        return NO_ITEMS
    if key not in mine.items or key not in theirs.items:
        return "item by item in one of the two alone"
    return (
        _other_items(mine.items[key], theirs.items[key])
        or _other_documents(mine.items[key], mine, theirs)
        or _other_settings(key, mine, theirs)
        or _other_judges(key, mine, theirs)
    )


def gain(key: str, mine: Items, theirs: Items) -> Gain:
    """Of a key of METRICS; the items are the same ones, two at least."""
    place = {name: at for at, name in enumerate(theirs.names)}
    order = np.array([place[name] for name in mine.names])
    paired = Items(mine.names, theirs.top[order], theirs.bottom[order])
    metric = metric_of(key)
    sign = -1.0 if metric is not None and metric.better == "lower" else 1.0
    found = interval(lambda indices: sign * (values_of(mine, indices) - values_of(paired, indices)), len(mine.names), SEED)
    assert found is not None, f"{key}: {len(mine.names)} items"
    everything = np.arange(len(mine.names))[None]
    value = sign * float((values_of(mine, everything) - values_of(paired, everything))[0])
    return Gain(value, found.low, found.high, found.num_items)


def _other_items(mine: Items, theirs: Items) -> str:
    if set(mine.names) != set(theirs.names):
        return f"on other items ({len(theirs.names)}, and here {len(mine.names)})"
    return "on one item alone" if len(mine.names) < 2 else ""


def _other_documents(items: Items, mine: KeptItems, theirs: KeptItems) -> str:
    """Items that are no documents (a prompt that was made up) are what they are called."""
    names = [name.removeprefix(GENERATED_FOR) for name in items.names]
    other = sum(mine.held_out.get(name) != theirs.held_out.get(name) for name in names)
    return f"on other held-out documents ({other} of {len(names)} have another content)" if other else ""


def _other_settings(key: str, mine: KeptItems, theirs: KeptItems) -> str:
    # A setting that one of them does not know came with a measurement that the other did not have.
    shared = [name for name in sorted(mine.settings.keys() & theirs.settings.keys()) if name.startswith(settings_behind(key))]
    differing = [name for name in shared if mine.settings[name] != theirs.settings[name]]
    said = [f"evaluate.{name} {theirs.settings[name]}, and here {mine.settings[name]}" for name in differing[:MOST_NAMED]]
    return f"with other settings ({'; '.join(said)})" if said else ""


def _other_judges(key: str, mine: KeptItems, theirs: KeptItems) -> str:
    if key.startswith((*OF_LATENTS, *OF_FEATURES, *BESIDE_TRAINING)) and mine.autoencoder != theirs.autoencoder:
        return "with another autoencoder"
    if key.startswith(OF_TARGETS) and mine.process != theirs.process:
        return "with another prediction type"
    if key.startswith(OF_FEATURES) and mine.documents != theirs.documents:
        return "in features whitened by pictures of other corpora"
    if key.startswith(BESIDE_TRAINING) and mine.documents != theirs.documents:
        return "beside training pictures of other corpora"
    if key.startswith(OF_CLASSIFIER) and mine.scans != theirs.scans:
        return "by a classifier trained on other scans"
    return ""
