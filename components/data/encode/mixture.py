"""How often does each document stand in the rows of an epoch? By its source's weight, and by the wanted share of text.

A pure function of names, sizes and parameters: no generator, no order of reading. Copies of a document are one document to
everything that is drawn for it: in one step they have one noise and one view.

Legend: N documents of the split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from core.errors import BadInput


class Population(NamedTuple):
    """Documents of one split.

    source: int64 [N], index into `sources`. text, image: int64 [N], positions of stored ids (control tokens among them) and of
    patches.
    draw: uint64 [N], a hash of each name.
    """

    sources: Sequence[str]
    source: np.ndarray
    text: np.ndarray
    image: np.ndarray
    draw: np.ndarray


def copies(population: Population, weights: Mapping[str, float], text_to_image: float) -> np.ndarray:
    """How many times each document stands in an epoch, int64 [N].

    weights: source -> times its documents appear, 1 where it is not named; of a fraction those with the smallest draws appear
    once more. text_to_image: positions of text for each of an image; documents of text alone are left out or repeated, all
    their sources alike, until it is met; 0 leaves them as they are. BadInput where it cannot be met.
    """
    weight = np.array([weights.get(name, 1.0) for name in population.sources])
    has_image = population.image > 0
    times = np.stack([weight, weight])
    if text_to_image:
        times[0] *= _text_factor(population, weight[population.source], text_to_image)
    chosen = np.zeros(len(population.source), np.int64)
    for images in (False, True):
        for source in range(len(population.sources)):
            members = np.flatnonzero((population.source == source) & (has_image == images))
            chosen[members] = _repeated(times[int(images), source], members, population)
    return chosen


def report(population: Population, copies: np.ndarray) -> dict[str, Any]:
    """What the rows of an epoch hold: by source, and the positions of text for each of an image."""
    text, image = int((population.text * copies).sum()), int((population.image * copies).sum())
    sources = {}
    for index, name in enumerate(population.sources):
        of_source = population.source == index
        sources[name] = {"documents": int(of_source.sum()), "in_rows": int(copies[of_source].sum())}
    shares = {"text_positions": text, "image_positions": image, "text_to_image": round(text / image, 4) if image else None}
    return {"sources": sources, **shares}


def _text_factor(population: Population, weight: np.ndarray, text_to_image: float) -> float:
    """How many times as often documents of text alone must appear."""
    alone = population.image == 0
    wanted = text_to_image * float((population.image * weight).sum())
    beside_images = float((population.text * weight)[~alone].sum())
    available = float((population.text * weight)[alone].sum())
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


def _repeated(times: float, members: np.ndarray, population: Population) -> np.ndarray:
    """Copies of each of `members`; once more those of the smallest draws that make up the fraction of their positions."""
    whole = int(times)
    ordered = members[np.argsort(population.draw[members], kind="stable")]
    size = (population.text + population.image)[ordered]
    # Each counts by its middle, so that what is taken differs from the fraction by half a document at most.
    more = ordered[np.cumsum(size) - size / 2 < (times - whole) * size.sum()]
    return whole + np.isin(members, more)
