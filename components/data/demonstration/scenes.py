"""Captioned scenes of real handwritten digits, made, and their captions read back.

A scene is 32 x 32 px, black, a 2 x 2 grid of 16 px cells; 1 to 4 cells hold one scan of scikit-learn's digits set,
14 px high, in one of six colours (intensity of the scan times the colour). Labels are known, so pictures and captions
can be judged exactly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from components.data.config import ScenesConfig, SplitShares
from components.data.documents import SPLITS, Document, ImageSegment, TextSegment
from core.png import encode_png
from core.random import generator

SCENE_SIDE_PX = 32
CELL_SIDE_PX = 16
DIGIT_SIDE_PX = 14

DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "magenta": (255, 0, 255),
    "cyan": (0, 255, 255),
}
# In reading order; captions list their objects in it.
PLACES = ("top left", "top right", "bottom left", "bottom right")


class Phrasing(NamedTuple):
    """One way to say what a scene shows."""

    prefix: str
    """Opens the caption."""
    item: str
    """One object."""
    between: str
    """Joins two items."""
    before_last: str
    """Joins the last two."""


PHRASINGS = (
    Phrasing("", "a {colour} {digit} {place}", ", ", " and "),
    Phrasing("", "{place}: {colour} {digit}", "; ", "; "),
    Phrasing("there is ", "a {colour} {digit} in the {place}", ", ", " and "),
    Phrasing("", "{digit} in {colour} at {place}", ", ", ", "),
)


class SceneObject(NamedTuple):
    """One digit of a scene."""

    digit: int
    """0..9."""
    colour: str
    """A key of COLOURS."""
    place: str
    """One of PLACES."""


class Scans(NamedTuple):
    """N scans."""

    intensity: np.ndarray
    """float32 [N, 14, 14] in 0..1, upscaled."""
    digit: np.ndarray
    """int64 [N] what each shows."""


Pair = tuple[int, str]
ALL_PAIRS: tuple[Pair, ...] = tuple((digit, colour) for digit in range(10) for colour in COLOURS)


@cache
def load_scans() -> Scans:
    """All 1,797 scans of scikit-learn's digits set, upscaled once from 8 x 8 by bicubic interpolation."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    # 16 is full ink in this set.
    scaled = [
        np.asarray(
            Image.fromarray((scan / 16).astype(np.float32)).resize((DIGIT_SIDE_PX, DIGIT_SIDE_PX), Image.Resampling.BICUBIC)
        )
        for scan in digits.images
    ]
    return Scans(np.stack(scaled).clip(0, 1), digits.target.astype(np.int64))


def split_scans(shares: SplitShares, seed: int) -> dict[str, np.ndarray]:
    """Sorted indices of the scans of each split: no handwriting is in two, and every digit is in all of them alike."""
    labels = load_scans().digit
    rng = generator(seed, 1)
    chosen: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    for digit in range(10):
        order = rng.permutation(np.flatnonzero(labels == digit))
        # At least one scan of every digit in every split, or a scene could not be drawn.
        num_validation, num_test = (max(1, round(share * len(order))) for share in (shares.validation, shares.test))
        chosen["validation"].append(order[:num_validation])
        chosen["test"].append(order[num_validation : num_validation + num_test])
        chosen["train"].append(order[num_validation + num_test :])
    return {split: np.sort(np.concatenate(parts)) for split, parts in chosen.items()}


def kept_out_pairs(num: int, seed: int) -> tuple[Pair, ...]:
    """The digit-colour pairs that no scene shows, spread so that no digit and no colour is hit more than necessary."""
    rng = generator(seed, 2)
    digits, colours = rng.permutation(10), rng.permutation(list(COLOURS))
    # Cycles of 10 and of 6 meet again after 30 pairs only, so the first 30 are distinct.
    assert num <= 30, f"{num} kept-out pairs cannot be spread"
    return tuple((int(digits[index % 10]), str(colours[index % 6])) for index in range(num))


def seen_pairs(kept_out: Sequence[Pair]) -> tuple[Pair, ...]:
    """All pairs but the kept-out ones."""
    return tuple(pair for pair in ALL_PAIRS if pair not in set(kept_out))


def random_objects(
    rng: np.random.Generator, allowed_pairs: Sequence[Pair], num_objects: int | None = None
) -> tuple[SceneObject, ...]:
    """1 to 4 objects (or num_objects) at different places, in reading order; every allowed pair is equally likely."""
    number = int(rng.integers(1, 5)) if num_objects is None else num_objects
    places = np.sort(rng.permutation(len(PLACES))[:number])
    pairs = rng.integers(len(allowed_pairs), size=number)
    return tuple(
        SceneObject(digit=allowed_pairs[pair][0], colour=allowed_pairs[pair][1], place=PLACES[place])
        for pair, place in zip(pairs, places, strict=True)
    )


def cell_corner(place: str) -> tuple[int, int]:
    """Row and column, in px, of the upper left corner of a place's cell."""
    row, column = divmod(PLACES.index(place), 2)
    return row * CELL_SIDE_PX, column * CELL_SIDE_PX


def compose(objects: Sequence[SceneObject], scans: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """uint8 [32, 32, 3]: scan scans[i] drawn as objects[i], each moved by at most 1 px from the middle of its cell."""
    intensity = load_scans().intensity
    picture = np.zeros((SCENE_SIDE_PX, SCENE_SIDE_PX, 3), np.uint8)
    shifts = rng.integers(0, CELL_SIDE_PX - DIGIT_SIDE_PX + 1, size=(len(objects), 2))
    for thing, scan, shift in zip(objects, scans, shifts, strict=True):
        row, column = np.add(cell_corner(thing.place), shift)
        ink = intensity[scan][:, :, None] * np.asarray(COLOURS[thing.colour], np.float32)
        picture[row : row + DIGIT_SIDE_PX, column : column + DIGIT_SIDE_PX] = np.rint(ink)
    return picture


def describe(objects: Sequence[SceneObject], phrasing: int) -> str:
    """The caption in one of PHRASINGS, objects in reading order."""
    return _phrase(sorted(objects, key=lambda thing: PLACES.index(thing.place)), PHRASINGS[phrasing])


def read_caption(text: str) -> frozenset[SceneObject] | None:
    """The objects that a caption names; None unless it is exactly a caption of some phrasing (objects in any order)."""
    for phrasing in PHRASINGS:
        found = [
            SceneObject(DIGIT_WORDS.index(match["digit"]), match["colour"], match["place"])
            for match in _item_pattern(phrasing.item).finditer(text)
        ]
        # Writing it again is the proof that nothing else stands between the items.
        if found and len({thing.place for thing in found}) == len(found) and _phrase(found, phrasing) == text:
            return frozenset(found)
    return None


def make_scenes(
    config: ScenesConfig, shares: SplitShares, *, seed: int, caption_first_share: float, source: str
) -> Iterator[Document]:
    """The scenes of all splits as documents; document i of a split depends on (seed, split, i) alone.

    meta: {"objects": [{"digit", "colour", "place"}, ...], "scans": [index into load_scans(), ...]}.
    """
    pairs = seen_pairs(kept_out_pairs(config.num_kept_out_pairs, seed))
    labels = load_scans().digit
    scans_of = {
        split: [indices[labels[indices] == digit] for digit in range(10)]
        for split, indices in split_scans(shares, seed).items()
    }
    for number, split in enumerate(SPLITS):
        for index in range(getattr(config, f"num_{split}")):
            rng = generator(seed, 3, number, index)
            objects = random_objects(rng, pairs)
            scans = [int(rng.choice(scans_of[split][thing.digit])) for thing in objects]
            image = ImageSegment(encode_png(compose(objects, scans, rng)))
            caption = TextSegment(describe(objects, int(rng.integers(len(PHRASINGS)))))
            segments = (caption, image) if rng.random() < caption_first_share else (image, caption)
            meta = {"objects": [thing._asdict() for thing in objects], "scans": scans}
            yield Document(key=f"{split}-{index:06d}", source=source, split=split, segments=segments, meta=meta)


def _phrase(objects: Sequence[SceneObject], phrasing: Phrasing) -> str:
    items = [phrasing.item.format(colour=thing.colour, digit=DIGIT_WORDS[thing.digit], place=thing.place) for thing in objects]
    body = phrasing.before_last.join([*([phrasing.between.join(items[:-1])] if items[1:] else []), items[-1]])
    return phrasing.prefix + body


@cache
def _item_pattern(item: str) -> re.Pattern[str]:
    words = {"digit": DIGIT_WORDS, "colour": tuple(COLOURS), "place": PLACES}
    return re.compile(item.format(**{name: f"(?P<{name}>{'|'.join(options)})" for name, options in words.items()}))
