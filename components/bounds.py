"""Bounds of configured numbers, as types that pydantic checks when params.yaml is read: `max_steps: Positive[int]`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

Number = TypeVar("Number", int, float)
# What every generator takes that a seed is given to.
LARGEST_SEED = 2**32 - 1


def rule(holds: Callable[[Any], bool], sentence: str) -> AfterValidator:
    """Refuses a value for which `holds` is false. sentence: "must be even", say; the path and the value are put before it."""

    def check(value: Any) -> Any:
        if not holds(value):
            raise PydanticCustomError("rule", "{sentence}", {"sentence": sentence, "value": value})
        return value

    return AfterValidator(check)


def at_least(least: int) -> AfterValidator:
    """Refuses smaller values."""
    return rule(lambda value: value >= least, f"must be at least {least}")


def within(least: int, most: int) -> AfterValidator:
    """Refuses values outside both ends."""
    return rule(lambda value: least <= value <= most, f"must lie in {least}..{most}")


def different(what: str) -> AfterValidator:
    """Refuses numbers of which two are written alike in a figure's name, which has six digits. what: "noise levels", say."""
    sentence = f"must be different {what}, in their first six digits"
    return rule(lambda values: len({f"{value:g}" for value in values}) == len(values), sentence)


Positive = Annotated[Number, rule(lambda value: value > 0, "must be greater than 0")]
NotNegative = Annotated[Number, at_least(0)]
Share = Annotated[float, within(0, 1)]
Seed = Annotated[int, within(0, LARGEST_SEED)]
