"""The mixture of an epoch: how often each document stands in its rows, by its source's weight and the wanted share of text.

A pure function of names, sizes and parameters: no generator, no order of reading. Repeats of a document are one document to
everything that is drawn for it: in one step they have one noise and one view.

Legend: N documents of the split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from core.errors import BadInput


class MixtureStatistics(NamedTuple):
    """What decides how often the documents of one split stand in its rows."""

    sources: Sequence[str]
    source: np.ndarray
    """int64 [N], index into `sources`."""
    text: np.ndarray
    """int64 [N], positions of stored ids, control tokens among them."""
    image: np.ndarray
    """int64 [N], positions of patches."""
    sampling_key: np.ndarray
    """uint64 [N], a hash of each name: of a fraction of a source, the documents with the smallest keys are taken."""


def repeats(statistics: MixtureStatistics, weights: Mapping[str, float], text_to_image: float) -> np.ndarray:
    """How many times each document stands in an epoch, int64 [N].

    weights: source -> times its documents appear, 1 where it is not named; of a fraction those with the smallest keys appear
    once more. text_to_image: positions of text for each of an image; documents of text alone are left out or repeated, all
    their sources alike, until it is met; 0 leaves them as they are. BadInput where it cannot be met.
    """
    weight = np.array([weights.get(name, 1.0) for name in statistics.sources])
    has_image = statistics.image > 0
    times = np.stack([weight, weight])
    if text_to_image:
        times[0] *= _text_factor(statistics, weight[statistics.source], text_to_image)
    chosen = np.zeros(len(statistics.source), np.int64)
    for images in (False, True):
        for source in range(len(statistics.sources)):
            members = np.flatnonzero((statistics.source == source) & (has_image == images))
            chosen[members] = _repeated(times[int(images), source], members, statistics)
    return chosen


def report(statistics: MixtureStatistics, times: np.ndarray) -> dict[str, Any]:
    """What the rows of an epoch hold: by source, and the positions of text for each of an image."""
    text, image = int((statistics.text * times).sum()), int((statistics.image * times).sum())
    sources = {}
    for index, name in enumerate(statistics.sources):
        of_source = statistics.source == index
        sources[name] = {"documents": int(of_source.sum()), "in_rows": int(times[of_source].sum())}
    shares = {"text_positions": text, "image_positions": image, "text_to_image": round(text / image, 4) if image else None}
    return {"sources": sources, **shares}


def _text_factor(statistics: MixtureStatistics, weight: np.ndarray, text_to_image: float) -> float:
    """How many times as often documents of text alone must appear."""
    alone = statistics.image == 0
    wanted = text_to_image * float((statistics.image * weight).sum())
    beside_images = float((statistics.text * weight)[~alone].sum())
    available = float((statistics.text * weight)[alone].sum())
    if not wanted or not available:
        raise BadInput(
            f"encode.text_to_image_ratio {text_to_image} needs both images and documents of text alone to train on;"
            " set it to 0 or give ingest corpora of both"
        )
    if beside_images > wanted:
        least = text_to_image * beside_images / wanted
        raise BadInput(
            f"encode.text_to_image_ratio {text_to_image} cannot be met: the text beside images alone has {least:.2f} positions"
            " for each of an image; set it to 0 or higher than that"
        )
    return (wanted - beside_images) / available


def _repeated(times: float, members: np.ndarray, statistics: MixtureStatistics) -> np.ndarray:
    """Repeats of each of `members`; once more those of the smallest keys that make up the fraction of their positions."""
    whole = int(times)
    ordered = members[np.argsort(statistics.sampling_key[members], kind="stable")]
    size = (statistics.text + statistics.image)[ordered]
    # Each counts by its middle, so that what is taken differs from the fraction by half a document at most.
    more = ordered[np.cumsum(size) - size / 2 < (times - whole) * size.sum()]
    return whole + np.isin(members, more)
