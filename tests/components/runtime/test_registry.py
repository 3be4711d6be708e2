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
        (GOOD, {}, True, "reaches its floor"),
    ],
)
def test_rule(metrics: dict[str, float], champion: dict[str, float] | None, wanted: bool, reason: str) -> None:
    decision = decide(metrics, champion, floors=FLOORS, compare="a/right")
    assert decision.champion is wanted
    assert any(reason in sentence for sentence in decision.reasons)


def test_a_metric_where_less_is_better() -> None:
    def beats(mine: float, theirs: float) -> bool:
        return decide({"bits": mine}, {"bits": theirs}, floors={}, compare="bits", higher_is_better=False).champion

    assert beats(1.9, 2.0)
    assert beats(2.0, 2.0)
    assert not beats(2.1, 2.0)
    assert not beats(float("nan"), 2.0)
    assert not decide({"bits": float("nan")}, {"bits": 2.0}, floors={}, compare="bits").champion
