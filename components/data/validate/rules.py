"""What a gate asks of a table: rules, each with its reason, what sets its bound, and what most often breaks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

# The column that names a row, in every table that is checked.
KEY = "key"


class Rule(NamedTuple):
    """One expectation."""

    level: Literal["row", "table"]
    """ "row": a failing row is quarantined, and does not stop by itself. "table": a failure refuses, or warns."""
    severity: Literal["critical", "warning"]
    """Great Expectations' own: a table that breaks a critical rule is refused."""
    kind: str
    """A class of great_expectations.expectations."""
    arguments: dict[str, Any]
    reason: str
    """Why it must hold."""
    what: str = ""
    """What is measured, for a sentence: "the packing fill"; "" takes the column's name."""
    cause: str = ""
    """What is most often behind a failure, and what to do about it; "" where the reason says it."""
    parameters: Mapping[str, str] = {}
    """Argument (min_value, max_value) -> the parameter that sets it, by its dotted path."""

    def because(self, what: str, cause: str, **parameters: str) -> Rule:
        """The same rule with all that its sentence needs."""
        return self._replace(what=what, cause=cause, parameters=parameters)


class Check(NamedTuple):
    """Rules over one table."""

    name: str
    """Of the table, in the report and in Data Docs."""
    table: pd.DataFrame
    rules: Sequence[Rule]


class Minimum(NamedTuple):
    """Rules over a part of the checked table, once bad rows are out."""

    name: str
    selection: Mapping[str, Any]
    """Column -> the value that the part's rows have."""
    rules: Sequence[Rule]


def row_rule(kind: str, reason: str, **arguments: Any) -> Rule:
    """A rule whose failing rows are quarantined."""
    return Rule("row", "warning", kind, arguments, reason)


def table_rule(kind: str, reason: str, **arguments: Any) -> Rule:
    """A rule whose failure refuses the table."""
    return Rule("table", "critical", kind, arguments, reason)


def warning_rule(kind: str, reason: str, **arguments: Any) -> Rule:
    """A rule about the table whose failure is told and does not refuse."""
    return Rule("table", "warning", kind, arguments, reason)
