"""Each cut of the composition asks its own question of the scenes that it is about."""

from __future__ import annotations

import pytest

from components.data.demonstration.scenes import SceneObject
from components.evaluation.metrics import COMPOSITION, metric_of
from components.evaluation.metrics import CUTS as MEANINGS
from components.evaluation.results import Results
from components.evaluation.scenes.composition import CUTS, measure_composition, measure_pairs_never_shown
from components.evaluation.scenes.scores import Objects

THREE = SceneObject(3, "red", "top left")
SEVEN = SceneObject(7, "blue", "bottom right")
ONE = SceneObject(1, "cyan", "top right")


def scene(*objects: SceneObject) -> Objects:
    return frozenset(objects)


def right_of(asked: Objects, read: Objects) -> dict[str, float]:
    """Of one picture, cut -> 0 or 1."""
    results = Results()
    measure_composition(results, "composition", [asked], [read], ["a picture"])
    assert len(results.metrics) + len(results.notes) == len(CUTS)
    return {key.removeprefix("composition/"): value for key, value in results.metrics.items()}


ALONE = {"one_object", "counting", "colour", "position"}
TOGETHER = {"two_objects", "counting", "position", "attribution"}


@pytest.mark.parametrize(
    ("read", "wrong"),
    [
        (scene(THREE), set()),
        (scene(THREE._replace(digit=8)), {"one_object", "colour", "position"}),
        (scene(THREE._replace(colour="blue")), {"colour"}),
        (scene(THREE._replace(place="top right")), {"position"}),
        (scene(THREE, ONE), {"counting"}),
        (scene(), ALONE),
    ],
)
def test_cuts_of_one_object(read: Objects, wrong: set[str]) -> None:
    assert right_of(scene(THREE), read) == {cut: float(cut not in wrong) for cut in ALONE}


@pytest.mark.parametrize(
    ("read", "wrong"),
    [
        (scene(THREE, SEVEN), set()),
        # The colours are there and belong to the other digit.
        (scene(THREE._replace(colour="blue"), SEVEN._replace(colour="red")), {"attribution"}),
        (scene(THREE._replace(place="bottom right"), SEVEN._replace(place="top left")), {"position"}),
        (scene(THREE), TOGETHER),
        (scene(THREE, SEVEN, ONE), {"counting"}),
        (scene(THREE, THREE._replace(place="top right")), TOGETHER - {"counting"}),
    ],
)
def test_cuts_of_two_objects(read: Objects, wrong: set[str]) -> None:
    assert right_of(scene(THREE, SEVEN), read) == {cut: float(cut not in wrong) for cut in TOGETHER}


def test_a_digit_asked_for_twice_is_shown_twice() -> None:
    twice = scene(THREE, THREE._replace(place="bottom right"))
    assert right_of(twice, twice)["two_objects"] == 1
    assert right_of(twice, scene(THREE, SEVEN))["two_objects"] == 0


def test_three_objects_are_counted_placed_and_bound() -> None:
    assert right_of(scene(THREE, SEVEN, ONE), scene(THREE, SEVEN)) == {"counting": 0, "position": 0, "attribution": 0}


def test_shares_are_over_the_pictures_of_a_cut() -> None:
    asked = [scene(THREE), scene(SEVEN), scene(THREE, SEVEN), scene(ONE, SEVEN)]
    read = [scene(THREE), scene(ONE), scene(THREE, SEVEN), scene()]
    results = Results()
    measure_composition(results, "composition_on_real", asked, read, ["a", "b", "c", "d"])
    values = {key.removeprefix("composition_on_real/"): value for key, value in results.metrics.items()}
    halves = dict.fromkeys(("one_object", "two_objects", "colour", "position", "attribution"), 0.5)
    assert values == {**halves, "counting": 0.75}
    assert results.items["composition_on_real/two_objects"].names == ("c", "d")
    assert not results.notes


def test_only_the_pair_never_shown_counts_of_its_picture() -> None:
    asked = [scene(THREE, SEVEN), scene(THREE, SEVEN)]
    read = [scene(THREE._replace(place="top right")), scene(SEVEN, THREE._replace(colour="green"))]
    results = Results()
    measure_pairs_never_shown(results, asked, read, [(3, "red")], ["a", "b"])
    assert results.metrics == {"composition/pairs_never_shown": 0.5}
    assert results.items["composition/pairs_never_shown"].top.tolist() == [1, 0]


def test_every_cut_has_a_meaning() -> None:
    assert MEANINGS.keys() == CUTS.keys() | {"pairs_never_shown"}
    for family in COMPOSITION:
        assert all(metric_of(f"{family}/{cut}") for cut in CUTS)
    assert metric_of("composition/pairs_never_shown")
    assert not metric_of("composition_on_real/pairs_never_shown")
