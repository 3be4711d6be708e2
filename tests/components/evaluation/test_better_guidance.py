"""Another guidance scale is named where its pictures are shown to be nearer to real ones, and show no fewer objects."""

from __future__ import annotations

import pytest

from components.evaluation.better_guidance import better_scale

Ends = tuple[float, float, float]


def sentence(frechet: dict[str, Ends], objects: dict[str, Ends] | None = None, used: float = 4.0) -> str:
    """By scale the low end, the figure and the high end."""
    swept = {"frechet": frechet, "objects_right": objects or {}}
    found = {f"guidance/{name}/{scale}": ends for name, scales in swept.items() for scale, ends in scales.items()}
    intervals = {key: {"low": low, "high": high, "num_items": 96} for key, (low, _, high) in found.items()}
    return better_scale({key: value for key, (_, value, _) in found.items()}, intervals, used)


NEARER: dict[str, Ends] = {"1": (8.0, 8.8, 9.6), "2": (9.0, 9.5, 10.0), "4": (12.0, 13.1, 14.0)}


def test_the_nearest_is_named() -> None:
    said = "evaluate.guidance_scale 4: pictures are nearer to real ones at 1 (Frechet 8.8 instead of 13.1)"
    assert sentence(NEARER) == said
    # No fewer are shown where the interval reaches what was found.
    assert sentence(NEARER, {"1": (0.9, 0.95, 0.99), "4": (0.9, 0.97, 1.0)}) == said


def test_one_that_shows_fewer_objects_is_not() -> None:
    objects = {"1": (0.8, 0.85, 0.9), "2": (0.98, 0.99, 1.0), "4": (0.9, 0.97, 1.0)}
    assert "ones at 2 (Frechet 9.5 instead of 13.1)" in sentence(NEARER, objects)


@pytest.mark.parametrize(
    "frechet",
    [
        {"1": (8.0, 8.8, 12.1), "4": (12.0, 13.1, 14.0)},
        {"4": (12.0, 13.1, 14.0), "6": (15.0, 16.0, 17.0)},
        {"1": (1.0, 1.5, 2.0)},
        {},
    ],
)
def test_nothing_is_said_where_nothing_is_shown(frechet: dict[str, Ends]) -> None:
    assert sentence(frechet) == ""
