"""Two models are compared on the same items in pairs, and on nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from components.evaluation.comparison import gain, why_apart
from components.evaluation.intervals import Items, interval_of, items_of
from components.evaluation.kept_items import KeptItems
from components.evaluation.metrics import METRICS, settings_behind

NAMES = [f"item {number}" for number in range(200)]
RIGHT, ERROR, BITS = "text_to_image/objects_right", "image/diffusion_loss", "text/bits_per_byte"
NEAR = "memorisation/flagged_share"
X_0, DENSITY, FOUND = "image/x0_error/0.5", "guidance/density/4", "retrieval/image_at_1"
# Of each its items' documents, as every evaluation has them.
DOCUMENTS = dict.fromkeys(NAMES, "d")
SETTINGS = {"seed": 17, "num_captions": 4, "loss_times": [0.5], "retrieval.group_size": 16, "retrieval.num_groups": 4}


def kept(*keys: str, names: Sequence[str] = NAMES) -> KeptItems:
    """With as many items of each figure."""
    every = {key: items_of(names, np.ones(len(names)), np.ones(len(names))) for key in keys}
    return KeptItems(every, DOCUMENTS, SETTINGS, {"prediction_type": "flow"}, autoencoder="a", documents="d")


def items(values: np.ndarray) -> Items:
    return items_of(NAMES[: len(values)], values, np.ones(len(values)))


def noise() -> np.ndarray:
    return np.random.default_rng(3).normal(size=len(NAMES))


def test_what_makes_an_item_hard_for_both_cancels_out() -> None:
    hard = 10 * noise()
    mine, theirs = items(hard + 0.5), items(hard)
    found = gain(RIGHT, mine, theirs)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
    alone = interval_of(mine, 0)
    assert alone is not None and alone.high - alone.low > 1


def test_the_interval_is_that_of_a_mean_of_differences() -> None:
    """Beside the normal approximation, which holds for so many."""
    difference = noise()
    found = gain(RIGHT, items(difference), items(np.zeros(len(NAMES))))
    assert found.num_items == len(NAMES)
    error = difference.std() / np.sqrt(len(NAMES))
    assert found.value == pytest.approx(difference.mean())
    assert (found.low, found.high) == pytest.approx((found.value - 1.96 * error, found.value + 1.96 * error), abs=0.15 * error)


def test_less_of_an_error_is_a_gain() -> None:
    found = gain(ERROR, items(noise() - 1), items(noise()))
    assert found.value == pytest.approx(1) and found.low > 0.9


def test_items_are_paired_by_name_and_not_by_place() -> None:
    values = noise()
    theirs = items_of(NAMES[::-1], values[::-1], np.ones(len(NAMES)))
    found = gain(RIGHT, items(values), theirs)
    assert (found.low, found.high) == pytest.approx((0, 0), abs=1e-12)


def test_other_items_and_one_alone_are_not_compared() -> None:
    mine = kept(RIGHT)
    assert why_apart(RIGHT, mine, mine) == ""
    assert why_apart(RIGHT, mine, kept(RIGHT, names=NAMES[:-1])) == "on other items (199, and here 200)"
    assert why_apart(RIGHT, mine, kept(RIGHT, names=[*NAMES[:-1], "another"])).startswith("on other items")
    assert why_apart(RIGHT, kept(RIGHT, names=NAMES[:1]), kept(RIGHT, names=NAMES[:1])) == "on one item alone"
    assert why_apart(RIGHT, mine, kept()) == "item by item in one of the two alone"
    assert why_apart("distribution/frechet", mine, mine) == "not item by item"


def test_a_figure_compares_where_the_documents_of_its_own_items_are_the_same() -> None:
    mine = kept(RIGHT, BITS)._replace(items={RIGHT: items(noise()), BITS: items(noise()[:50])})
    other = mine._replace(held_out=DOCUMENTS | {NAMES[60]: "e", NAMES[61]: "e"})
    assert why_apart(RIGHT, mine, other) == "on other held-out documents (2 of 200 have another content)"
    assert why_apart(BITS, mine, other) == ""
    # More documents than these were read.
    assert why_apart(RIGHT, mine, mine._replace(held_out=DOCUMENTS | {"more": "d"})) == ""
    generated = kept("memorisation/flagged_share", names=[f"generated for {name}" for name in NAMES])
    changed = generated._replace(held_out=DOCUMENTS | {NAMES[3]: "e"})
    assert why_apart("memorisation/flagged_share", generated, generated) == ""
    assert "1 of 200" in why_apart("memorisation/flagged_share", generated, changed)


def test_a_figure_compares_where_the_settings_that_it_depends_on_are_the_same() -> None:
    mine = kept(RIGHT, ERROR, BITS, FOUND)
    for setting, value, blocked in (
        ("seed", 18, {RIGHT, ERROR, FOUND}),
        ("num_captions", 8, set()),
        ("loss_times", [0.5, 0.7], {ERROR}),
        ("retrieval.group_size", 8, {FOUND}),
        ("retrieval.num_groups", 8, set()),
    ):
        other = mine._replace(settings=SETTINGS | {setting: value})
        assert {key for key in mine.items if why_apart(key, mine, other)} == blocked, setting
    reseeded = mine._replace(settings=SETTINGS | {"seed": 18})
    assert why_apart(RIGHT, mine, reseeded) == "with other settings (evaluate.seed 18, and here 17)"
    before = mine._replace(settings={"seed": 17})
    assert why_apart(ERROR, mine, before) == "", "a measurement that came later changes none of the others"
    unknown = kept("a/figure")
    assert why_apart("a/figure", unknown, unknown._replace(settings=SETTINGS | {"num_captions": 8})), (
        "nobody knows, so all count"
    )


def test_every_measured_figure_says_which_settings_it_depends_on() -> None:
    assert [key for key, metric in METRICS.items() if metric.compares and settings_behind(key) == ("",)] == []


def test_errors_of_latents_are_compared_within_one_autoencoder_and_those_of_targets_within_one_process() -> None:
    mine = kept(RIGHT, ERROR, X_0, DENSITY, NEAR)
    for change, blocked in (
        ({"autoencoder": "b"}, {ERROR, X_0, DENSITY, NEAR}),
        ({"process": {"prediction_type": "epsilon"}}, {ERROR}),
        ({"documents": "e"}, {DENSITY, NEAR}),
    ):
        assert {key for key in mine.items if why_apart(key, mine, mine._replace(**change))} == blocked
    assert why_apart(NEAR, mine, mine._replace(documents="e")) == "beside training pictures of other corpora"


def test_what_the_digit_classifier_read_is_compared_where_it_was_trained_on_the_same_scans() -> None:
    read = {RIGHT, "composition/counting", "composition_on_reconstructed/colour", "guidance/objects_right/4"}
    mine = kept(*read, "image_to_text/objects_right", BITS, ERROR, "guidance/coverage/4")
    other = mine._replace(scans="others")
    assert {key for key in mine.items if why_apart(key, mine, other)} == read
    assert why_apart(RIGHT, mine, other) == "by a classifier trained on other scans"
