"""Scenes are what their captions say, scans and kept-out pairs are kept apart, every caption is read back exactly."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.data.config import ScenesConfig, SplitShares
from components.data.demonstration.scenes import (
    ALL_PAIRS,
    CELL_SIDE_PX,
    COLOURS,
    DIGIT_WORDS,
    PHRASINGS,
    PLACES,
    SceneObject,
    cell_corner,
    compose,
    describe,
    kept_out_pairs,
    load_scans,
    make_scenes,
    random_objects,
    read_caption,
    seen_pairs,
    split_scans,
)
from components.data.documents import SPLITS, Document, ImageSegment
from core.png import decode_png

SHARES = SplitShares(validation=0.08, test=0.12)
OBJECTS = st.builds(SceneObject, st.integers(0, 9), st.sampled_from(list(COLOURS)), st.sampled_from(PLACES))
SCENES = st.lists(OBJECTS, min_size=1, max_size=4, unique_by=lambda thing: thing.place)


def scenes(num_train: int = 600, num_held_out: int = 200, seed: int = 5) -> list[Document]:
    config = ScenesConfig(num_train=num_train, num_validation=num_held_out, num_test=num_held_out, num_kept_out_pairs=6)
    return list(make_scenes(config, SHARES, seed=seed, caption_first_share=0.8, source="scenes"))


@settings(deadline=None)
@given(objects=SCENES, phrasing=st.integers(0, len(PHRASINGS) - 1))
def test_every_caption_is_read_back_exactly(objects: list[SceneObject], phrasing: int) -> None:
    assert read_caption(describe(objects, phrasing)) == frozenset(objects)


@settings(deadline=None)
@given(objects=SCENES, phrasing=st.integers(0, len(PHRASINGS) - 1), data=st.data())
def test_a_caption_with_one_character_changed_is_never_read_as_the_same(
    objects: list[SceneObject], phrasing: int, data: st.DataObject
) -> None:
    text = describe(objects, phrasing)
    at = data.draw(st.integers(0, len(text) - 1))
    assert read_caption(text[:at] + text[at + 1 :]) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a red three",
        "a red three top left and",
        "a red three top left and a blue seven bottom right.",
        " a red three top left",
        "a red three top left and a blue seven top left",
        "a red three top left, a blue seven bottom right",
        "there is a red three top left",
        "top left: red three, bottom right: blue seven",
        "a pink three top left",
    ],
)
def test_what_is_no_caption_is_not_read(text: str) -> None:
    assert read_caption(text) is None


def test_captions_differ_between_phrasings_and_list_in_reading_order() -> None:
    objects = [SceneObject(7, "blue", "bottom right"), SceneObject(3, "red", "top left")]
    captions = {describe(objects, phrasing) for phrasing in range(len(PHRASINGS))}
    assert len(captions) == len(PHRASINGS) >= 4
    assert describe(objects, 0) == "a red three top left and a blue seven bottom right"
    assert all(caption.index("three") < caption.index("seven") for caption in captions)


def test_scans_are_split_without_overlap_and_alike_in_every_digit() -> None:
    labels = load_scans().digit
    chosen = split_scans(SHARES, seed=3)
    every = np.concatenate(list(chosen.values()))
    assert sorted(every) == list(range(1797))
    assert abs(len(chosen["test"]) / 1797 - 0.12) < 0.01
    assert abs(len(chosen["validation"]) / 1797 - 0.08) < 0.01
    for split in SPLITS:
        shares = np.bincount(labels[chosen[split]], minlength=10) / len(chosen[split])
        assert np.abs(shares - 0.1).max() < 0.02
    assert any(not np.array_equal(chosen[split], split_scans(SHARES, seed=4)[split]) for split in SPLITS)


@pytest.mark.parametrize("number", [0, 1, 6, 10, 20])
def test_kept_out_pairs_are_spread(number: int) -> None:
    for seed in range(10):
        pairs = kept_out_pairs(number, seed)
        assert len(set(pairs)) == number
        assert max(Counter(digit for digit, _ in pairs).values(), default=0) <= -(-number // 10)
        assert max(Counter(colour for _, colour in pairs).values(), default=0) <= -(-number // 6)
        assert set(seen_pairs(pairs)) | set(pairs) == set(ALL_PAIRS)
        assert set(seen_pairs(pairs)).isdisjoint(pairs)


def test_no_scene_shows_a_kept_out_pair_or_a_scan_of_another_split() -> None:
    kept_out = set(kept_out_pairs(6, seed=5))
    chosen = {split: set(indices) for split, indices in split_scans(SHARES, seed=5).items()}
    labels = load_scans().digit
    for document in scenes():
        objects, scans = document.meta["objects"], document.meta["scans"]
        assert document.split is not None
        assert {(thing["digit"], thing["colour"]) for thing in objects}.isdisjoint(kept_out)
        assert set(scans) <= chosen[document.split]
        assert [int(labels[scan]) for scan in scans] == [thing["digit"] for thing in objects]


def test_pictures_show_what_the_meta_says_and_nothing_else() -> None:
    for document in scenes(200, 20):
        picture = decode_png(document.images[0])
        assert picture.shape == (32, 32, 3)
        places = {thing["place"]: thing["colour"] for thing in document.meta["objects"]}
        for place in PLACES:
            row, column = cell_corner(place)
            cell = picture[row : row + CELL_SIDE_PX, column : column + CELL_SIDE_PX]
            lit = [cell[..., channel].max() > 100 for channel in range(3)]
            assert lit == [value > 0 for value in COLOURS.get(places.get(place, ""), (0, 0, 0))]
        assert read_caption(document.texts[0]) == frozenset(SceneObject(**thing) for thing in document.meta["objects"])


def test_digits_are_14_px_high_and_move_by_at_most_1_px() -> None:
    rng = np.random.default_rng(0)
    scan = int(np.flatnonzero(load_scans().digit == 0)[0])
    seen = set()
    for _ in range(60):
        picture = compose([SceneObject(0, "red", "bottom right")], [scan], rng)
        rows = np.flatnonzero(picture[..., 0].max(axis=1) > 40)
        assert 11 <= rows.max() - rows.min() + 1 <= 14
        assert not picture[:16].any()
        assert not picture[:, :16].any()
        seen.add(picture.tobytes())
    # Three places each way.
    assert len(seen) == 9


def test_draws_are_uniform() -> None:
    seed = 11
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    allowed = seen_pairs(kept_out_pairs(6, seed))
    drawn = [random_objects(rng, allowed) for _ in range(6000)]
    sizes = np.bincount([len(objects) for objects in drawn])[1:]
    assert np.abs(sizes / 6000 - 0.25).max() < 0.03
    pairs = Counter((thing.digit, thing.colour) for objects in drawn for thing in objects)
    assert set(pairs) == set(allowed)
    expected = pairs.total() / len(allowed)
    assert max(abs(count / expected - 1) for count in pairs.values()) < 0.3
    places = Counter(thing.place for objects in drawn for thing in objects)
    assert max(abs(count / (pairs.total() / 4) - 1) for count in places.values()) < 0.1
    for objects in drawn:
        order = [PLACES.index(thing.place) for thing in objects]
        assert order == sorted(set(order))


def test_documents_follow_the_seed_and_their_index_alone() -> None:
    few, many = scenes(20, 5), scenes(40, 5)
    assert few[:20] == many[:20]
    assert few[20:] == many[40:]
    assert scenes(20, 5, seed=6) != few
    shares = Counter(isinstance(document.segments[0], ImageSegment) for document in scenes(1000, 1))
    assert abs(shares[True] / 1002 - 0.2) < 0.05
    words = Counter(
        next(index for index, phrasing in enumerate(PHRASINGS) if phrasing_of(document) == index) for document in many
    )
    assert set(words) == set(range(len(PHRASINGS)))
    assert len({document.key for document in many}) == len(many)
    assert all(any(word in document.texts[0] for word in DIGIT_WORDS) for document in many)


def phrasing_of(document: Document) -> int:
    objects = [SceneObject(**thing) for thing in document.meta["objects"]]
    return next(index for index in range(len(PHRASINGS)) if describe(objects, index) == document.texts[0])
