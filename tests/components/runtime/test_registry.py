"""A version becomes champion above the floors, and never where it is worse than the present one."""

from __future__ import annotations

import pytest

from components.runtime.registry import decide

FLOORS = {"a/right": 0.9, "b/right": 0.8}
GOOD = {"a/right": 0.95, "b/right": 0.8}


@pytest.mark.parametrize(
    ("metrics", "champion", "wanted", "reason"),
    [
        (GOOD, None, True, "no champion yet"),
        (GOOD, {"a/right": 0.95}, True, "not worse than"),
        (GOOD, {"a/right": 0.94}, True, "not worse than"),
        (GOOD, {"a/right": 0.9501}, False, "worse than"),
        (GOOD | {"b/right": 0.79}, None, False, "misses its floor"),
        ({"a/right": 0.95}, None, False, "b/right (not measured) misses its floor"),
        ({"b/right": 0.9}, {"a/right": 0.1}, False, "was not measured"),
        (GOOD | {"a/right": float("nan")}, None, False, "misses its floor"),
        (GOOD, {}, True, "the champion has no a/right that is known"),
    ],
)
def test_rule(metrics: dict[str, float], champion: dict[str, float] | None, wanted: bool, reason: str) -> None:
    decision = decide(metrics, champion, floors=FLOORS, compare="a/right")
    assert decision.champion is wanted
    assert any(reason in sentence for sentence in decision.reasons)


def test_a_difference_within_the_errors_is_called_so() -> None:
    def sentence(theirs: float, *, mine_se: float = 0.03, theirs_se: float = 0.04) -> str:
        champion = {"a/right": theirs, "a/right_se": theirs_se}
        return decide({"a/right": 0.5, "a/right_se": mine_se}, champion, floors={}, compare="a/right").reasons[-1]

    within = "within two standard errors"
    # Of the difference: 0.05.
    assert within in sentence(0.59) and "worse than" in sentence(0.59) and within in sentence(0.41)
    assert within not in sentence(0.61) and within not in sentence(0.39) and within not in sentence(0.5)
    assert within not in sentence(0.51, mine_se=0, theirs_se=0)
    assert within not in decide({"a/right": 0.5}, {"a/right": 0.49}, floors={}, compare="a/right").reasons[-1]


def test_a_metric_where_less_is_better() -> None:
    def beats(mine: float, theirs: float) -> bool:
        return decide({"bits": mine}, {"bits": theirs}, floors={}, compare="bits", higher_is_better=False).champion

    assert beats(1.9, 2.0)
    assert beats(2.0, 2.0)
    assert not beats(2.1, 2.0)
    assert not beats(float("nan"), 2.0)
    assert not decide({"bits": float("nan")}, {"bits": 2.0}, floors={}, compare="bits").champion
