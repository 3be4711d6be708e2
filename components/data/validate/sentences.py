"""What a gate says of a broken rule: what was observed, the bound, the parameter that sets it, and the commonest cause."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from components.data.validate.results import ExpectationResult
from components.data.validate.rules import KEY, Rule
from core.text import counted

NUM_KEYS_SHOWN = 5


class Break(NamedTuple):
    """A row that breaks a row rule."""

    rule: Rule
    row: Mapping[str, Any]
    """Its key, and the values that the rule looked at."""


def sentence(rule: Rule, result: ExpectationResult, *, num_rows: int, set_aside: Sequence[Break] = ()) -> str:
    """The sentence of a rule that failed over a table of `num_rows` rows. set_aside: the rows that had been taken out of it."""
    start = f"{result.table}: "
    if result.error:
        return f"{start}{rule.what or _column(rule)} could not be evaluated: {result.error}"
    is_bound = {"min_value", "max_value"} & set(rule.arguments)
    if result.rows and not (num_rows == 1 and is_bound):
        seen = f"{_fault(rule)} in {counted(result.num_failing, 'row')} ({_shown(rule, result.rows)})"
    else:
        # Of a table of one row that row's value is the table's.
        observed = next(iter(_values(result.rows[0]).values()), None) if result.rows else result.observed
        seen = _measured(rule, observed)
    return f"{start}{seen}{_missing(set_aside)}: {rule.cause or rule.reason}"


def row_reason(broken: Break) -> str:
    """Why one row is quarantined: "num_uncut_tokens = 5000, above validate.documents.max_tokens 4096: ..."."""
    values = _values(broken.row)
    bound = _bound(broken.rule, next(iter(values.values()), None)) if broken.rule.parameters else ""
    shown = "; ".join(f"{name} = {value}" for name, value in values.items())
    return f"{shown}{bound and f', {bound}'}: {broken.rule.reason}"


def share_sentence(name: str, breaks: Sequence[Break], *, num_quarantined: int, num_rows: int, bound: str) -> str:
    """The sentence of too many quarantined rows. bound: the parameter and its value."""
    (reason, number), *_ = Counter(each.rule.reason for each in breaks).most_common()
    commonest = next(each.rule for each in breaks if each.rule.reason == reason)
    examples = ", ".join(f"{each.row[KEY]} ({row_reason(each)})" for each in breaks[:3])
    cause = f"; {commonest.cause}" if commonest.cause else ""
    return (
        f"{name}: {num_quarantined} of {num_rows} rows are set aside, a share of {num_quarantined / num_rows:.4f}, which is"
        f" above {bound}: {number} of them because {reason}{cause}; the first are {examples}"
    )


def _measured(rule: Rule, observed: Any) -> str:
    """A clause about one observed value of the whole table."""
    if "column_set" in rule.arguments:
        return f"columns are missing: {', '.join(sorted(set(rule.arguments['column_set']) - set(observed or [])))}"
    value = f"{observed:.4g}" if isinstance(observed, float) else str(observed)
    if "column_A" in rule.arguments:
        return _fault(rule)
    return f"{rule.what or _column(rule)}, {value}, is {_bound(rule, observed)}"


def _fault(rule: Rule) -> str:
    """A clause about rows that break the rule."""
    column, arguments = rule.what or _column(rule), rule.arguments
    if "column_A" in arguments:
        return f"{arguments['column_A']} and {arguments['column_B']} differ"
    if "value_set" in arguments:
        return f"{column} is none of {', '.join(map(str, arguments['value_set']))}"
    if rule.kind.endswith("NotBeNull"):
        return f"{column} is missing"
    if rule.kind.endswith("BeUnique"):
        return f"{column} comes more than once"
    return f"{column} is {_bound(rule, None)}"


def _bound(rule: Rule, observed: Any) -> str:
    """ "below validate.latents.min_rows 20": the bound that was broken, by its parameter where one sets it."""
    least, most = rule.arguments.get("min_value"), rule.arguments.get("max_value")
    if least is not None and most is not None and least == -most:
        # Bounds on both sides of 0 are one parameter: which side it was says nothing about what to change.
        return f"farther from 0 than {_named(rule, 'max_value')}"
    # Rows that are listed by their keys have no one value to tell the broken bound by; then both are named.
    is_number = isinstance(observed, (int, float))
    if most is None or (least is not None and is_number and observed < least):
        return f"below {_named(rule, 'min_value')}"
    if least is None or (is_number and observed > most):
        return f"above {_named(rule, 'max_value')}"
    return f"below {_named(rule, 'min_value')} or above {_named(rule, 'max_value')}"


def _named(rule: Rule, argument: str) -> str:
    return f"{rule.parameters.get(argument, '')} {rule.arguments.get(argument)}".strip()


def _missing(set_aside: Sequence[Break]) -> str:
    """How many rows had been taken out before, and why: a corpus of enough documents can end below a minimum by that."""
    if not set_aside:
        return ""
    number = len({each.row[KEY] for each in set_aside})
    reasons = Counter(f"{each.rule.reason} ({each.rule.cause})" if each.rule.cause else each.rule.reason for each in set_aside)
    parts = "; ".join(f"{count} because {reason}" for reason, count in reasons.most_common())
    return f" without the {number} that were set aside before ({parts})"


def _shown(rule: Rule, rows: Sequence[Mapping[str, Any]]) -> str:
    """The first keys, each with its values where a rule looked at values."""
    says_value = not rule.kind.endswith(("NotBeNull", "BeUnique"))
    parts = []
    for row in rows[:NUM_KEYS_SHOWN]:
        values = " / ".join(str(value) for value in _values(row).values()) if says_value else ""
        parts.append(f"{row.get(KEY)}{values and f': {values}'}")
    return ", ".join(parts)


def _values(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != KEY}


def _column(rule: Rule) -> str:
    column = rule.arguments.get("column")
    return f"column {column}" if column else "the number of rows"
