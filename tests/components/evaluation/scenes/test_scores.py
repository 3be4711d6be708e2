"""Shares count what they say, and their standard errors are those of drawing the scenes anew."""

from __future__ import annotations

import numpy as np
import pytest

from components.data.demonstration.scenes import PHRASINGS, SceneObject, describe
from components.evaluation.scenes.scores import CaptionScores, SceneScores, score_captions, score_scenes, share_of

THREE = SceneObject(3, "red", "top left")
SEVEN = SceneObject(7, "blue", "bottom right")
ONE = SceneObject(1, "cyan", "top right")
BOTH = frozenset({THREE, SEVEN})


def values(scores: SceneScores | CaptionScores) -> tuple[float, ...]:
    return tuple(share.value for share in scores)


def random_scenes(seed: int, num_scenes: int) -> tuple[np.ndarray, np.ndarray]:
    """Right and counted objects of each scene; the objects of one scene go right or wrong together, mostly."""
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    counted = rng.integers(1, 5, num_scenes)
    chance = np.where(rng.random(num_scenes) < 0.7, 0.95, 0.2)
    return rng.binomial(counted, chance), counted


@pytest.mark.parametrize("seed", [1, 2])
def test_the_standard_error_is_that_of_scenes_drawn_anew(seed: int) -> None:
    right, counted = random_scenes(seed, 300)
    share = share_of(right.tolist(), counted.tolist())
    assert share.value == right.sum() / counted.sum()
    drawn = np.random.default_rng(seed + 100).integers(0, 300, (5_000, 300))
    bootstrap = (right[drawn].sum(1) / counted[drawn].sum(1)).std()
    assert share.standard_error == pytest.approx(bootstrap, rel=0.05)
    # Objects counted as if each were a sample of its own would look surer than they are.
    binomial = np.sqrt(share.value * (1 - share.value) / counted.sum())
    assert share.standard_error > 1.3 * binomial


def test_the_standard_error_of_whole_scenes_is_that_of_a_mean() -> None:
    outcomes = [1, 0, 0, 1, 1]
    share = share_of(outcomes, [1] * 5)
    assert share.standard_error == pytest.approx(np.std(outcomes, ddof=1) / np.sqrt(5), rel=1e-12)


def test_one_scene_has_no_standard_error_and_none_no_share() -> None:
    assert share_of([1], [2]) == (0.5, None, (1,), (2,))
    with pytest.raises(ValueError, match="counted"):
        share_of([0, 0], [0, 0])


def test_right_scenes_score_one() -> None:
    asked = [BOTH, frozenset({ONE})]
    assert [share[:2] for share in score_scenes(asked, asked)] == [(1, 0)] * 5


def test_each_mistake_lowers_its_own_share() -> None:
    asked = [BOTH] * 4 + [frozenset({ONE})]
    read = [
        frozenset({THREE._replace(digit=8), SEVEN}),  # another digit
        frozenset({THREE._replace(colour="green"), SEVEN}),  # another colour
        frozenset({THREE._replace(place="bottom left"), SEVEN}),  # another place
        frozenset({THREE, SEVEN, ONE}),  # one too many
        frozenset({ONE}),
    ]
    scores = score_scenes(asked, read)
    assert values(scores) == pytest.approx((6 / 9, 1 / 5, 7 / 9, 7 / 9, 8 / 9))
    assert scores.objects == share_of([1, 1, 1, 2, 1], [2, 2, 2, 2, 1])
    assert scores.digit == share_of([1, 2, 1, 2, 1], [2, 2, 2, 2, 1])
    assert scores.scenes == share_of([0, 0, 0, 0, 1], [1] * 5)


def test_only_counted_objects_make_the_shares_of_objects() -> None:
    asked, read = [BOTH, frozenset({THREE})], [frozenset({SEVEN}), frozenset({THREE})]
    scores = score_scenes(asked, read, [frozenset({THREE}), frozenset({THREE})])
    assert scores.objects == scores.scenes == share_of([0, 1], [1, 1])
    with pytest.raises(ValueError, match="counted"):
        score_scenes(asked, read, [frozenset(), frozenset()])


@pytest.mark.parametrize("phrasing", range(len(PHRASINGS)))
def test_every_phrasing_of_the_truth_is_right(phrasing: int) -> None:
    assert values(score_captions([describe([SEVEN, THREE], phrasing)], [BOTH])) == (1, 1, 1)


@pytest.mark.parametrize(
    ("caption", "objects", "readable"),
    [
        ("a red three top left", 1 / 2, 1),  # one missing
        ("a red three top left and a blue six bottom right", 1 / 2, 1),
        ("a red three top left, a cyan one top right and a blue seven bottom right", 2 / 3, 1),  # one too many
        ("a blue seven top left and a red three bottom right", 0, 1),
        ("a red three top left and a blue seven bottom right and", 0, 0),  # not a caption of the corpus
        ("", 0, 0),
    ],
)
def test_mistakes_in_captions_count(caption: str, objects: float, readable: float) -> None:
    assert values(score_captions([caption], [BOTH])) == (pytest.approx(objects), 0, readable)


def test_scores_of_captions_are_over_all_scenes() -> None:
    captions = [
        describe([THREE, SEVEN], 0),
        "nonsense",
        "a red three top left, a cyan one top right and a blue seven bottom right",
    ]
    scores = score_captions(captions, [BOTH, frozenset({THREE}), BOTH])
    assert scores == (share_of([2, 0, 2], [2, 1, 3]), share_of([1, 0, 0], [1] * 3), share_of([1, 0, 1], [1] * 3))
