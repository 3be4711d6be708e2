"""Scores of scenes and captions, object by object, as shares with their standard errors.

Legend: N scenes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from components.data.demonstration.scenes import SceneObject, read_caption

Objects = frozenset[SceneObject]


class Share(NamedTuple):
    """A share in 0..1, measured on scenes."""

    value: float
    standard_error: float | None
    """Over scenes; None where there is one scene alone. 0 where all scenes came out alike, which is no certainty."""
    right: tuple[int, ...]
    counted: tuple[int, ...]
    """Of each scene."""


class SceneScores(NamedTuple):
    """What of asked scenes was found."""

    objects: Share
    """Digit, colour and place together."""
    scenes: Share
    """Exactly the asked objects and nothing more."""
    digit: Share
    colour: Share
    """That of the object found at the asked place."""
    place: Share
    """Anything found there."""


class CaptionScores(NamedTuple):
    """What captions said of scenes."""

    objects: Share
    """Named in digit, colour and place; an object too many counts as a wrong one."""
    scenes: Share
    """Captions that name exactly the objects."""
    readable: Share
    """Captions in one of the corpus's phrasings."""


def share_of(right: Sequence[int], counted: Sequence[int]) -> Share:
    """All that is right over all that is counted; both have an entry a scene.

    The objects of a scene go right or wrong together, so the scenes are the sample, and the share is a ratio of two sums over
    it: n / (n - 1) * sum (right - share * counted)^2 / (sum counted)^2 is its squared standard error (Cochran, Sampling
    Techniques, 3rd edition, eq. 6.13, of an endless population).
    Raises ValueError where nothing is counted.
    """
    num_right, num_counted = np.asarray(right, np.float64), np.asarray(counted, np.float64)
    total, num_scenes = num_counted.sum(), len(num_counted)
    if not total:
        raise ValueError("counted: there is nothing to score")
    value, each = num_right.sum() / total, (tuple(map(int, right)), tuple(map(int, counted)))
    if num_scenes == 1:
        return Share(float(value), None, *each)
    squares = np.square(num_right - value * num_counted).sum()
    return Share(float(value), float(np.sqrt(num_scenes / (num_scenes - 1) * squares) / total), *each)


def score_scenes(asked: Sequence[Objects], read: Sequence[Objects], counted: Sequence[Objects] | None = None) -> SceneScores:
    """Compare what was asked for with what was read, scene by scene.

    counted: the asked objects that the shares of objects are over (all without it); whole scenes always count all.
    """
    counted = asked if counted is None else counted
    at_place = [{thing.place: thing for thing in found} for found in read]

    def objects(is_right: Callable[[SceneObject, SceneObject | None], bool]) -> Share:
        right = [
            sum(is_right(thing, found.get(thing.place)) for thing in wanted)
            for wanted, found in zip(counted, at_place, strict=True)
        ]
        return share_of(right, [len(wanted) for wanted in counted])

    return SceneScores(
        objects=objects(lambda thing, found: found == thing),
        scenes=_all_alike(asked, read),
        digit=objects(lambda thing, found: found is not None and found.digit == thing.digit),
        colour=objects(lambda thing, found: found is not None and found.colour == thing.colour),
        place=objects(lambda thing, found: found is not None),
    )


def score_captions(captions: Sequence[str], truth: Sequence[Objects]) -> CaptionScores:
    """Compare captions with what the pictures show; a caption that is no caption of the corpus names nothing."""
    parsed = [read_caption(caption) for caption in captions]
    named = [found or frozenset() for found in parsed]
    pairs = list(zip(named, truth, strict=True))
    return CaptionScores(
        objects=share_of([len(found & real) for found, real in pairs], [max(len(found), len(real)) for found, real in pairs]),
        scenes=_all_alike(truth, named),
        readable=share_of([found is not None for found in parsed], [1] * len(parsed)),
    )


def _all_alike(wanted: Sequence[Objects], found: Sequence[Objects]) -> Share:
    return share_of([one == other for one, other in zip(wanted, found, strict=True)], [1] * len(wanted))
