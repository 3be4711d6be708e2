"""Bounds of configured numbers, as types that pydantic checks when params.yaml is read: `max_steps: Positive[int]`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

Number = TypeVar("Number", int, float)
# What every generator takes that a seed is given to.
LARGEST_SEED = 2**32 - 1


class Rule(NamedTuple):
    """Refuses a value for which `holds` is false."""

    holds: Callable[[Any], bool]
    sentence: str
    """What the value must be; the path and the value are put before it."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """How pydantic asks for the check; it is loaded where parameters are read, and not where training needs their types."""
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def check(self, value: Any) -> Any:
        """The value; PydanticCustomError where the rule does not hold."""
        from pydantic_core import PydanticCustomError

        if not self.holds(value):
            raise PydanticCustomError("rule", "{sentence}", {"sentence": self.sentence, "value": value})
        return value


def rule(holds: Callable[[Any], bool], sentence: str) -> Rule:
    """Refuses a value for which `holds` is false. sentence: "must be even", say; the path and the value are put before it."""
    return Rule(holds, sentence)


def at_least(least: int) -> Rule:
    """Refuses smaller values."""
    return rule(lambda value: value >= least, f"must be at least {least}")


def within(least: int, most: int) -> Rule:
    """Refuses values outside both ends."""
    return rule(lambda value: least <= value <= most, f"must lie in {least}..{most}")


def different(what: str) -> Rule:
    """Refuses numbers of which two are written alike in a figure's name, which has six digits. what: "noise levels", say."""
    sentence = f"must be different {what}, in their first six digits"
    return rule(lambda values: len({f"{value:g}" for value in values}) == len(values), sentence)


Positive = Annotated[Number, rule(lambda value: value > 0, "must be greater than 0")]
NotNegative = Annotated[Number, at_least(0)]
Share = Annotated[float, within(0, 1)]
Seed = Annotated[int, within(0, LARGEST_SEED)]
