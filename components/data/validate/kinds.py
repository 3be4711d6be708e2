"""The expectations of Great Expectations that the rules use, and the rules that every table has."""

from __future__ import annotations

from collections.abc import Sequence

from components.data.documents import SPLITS
from components.data.validate.rules import Rule, table_rule

VALUES, NOT_NULL, UNIQUE = (
    "ExpectColumnValuesToBeBetween",
    "ExpectColumnValuesToNotBeNull",
    "ExpectColumnValuesToBeUnique",
)
IN_SET, SUM, ROWS = "ExpectColumnValuesToBeInSet", "ExpectColumnSumToBeBetween", "ExpectTableRowCountToBeBetween"
COLUMNS, MEAN, PAIR = "ExpectTableColumnsToMatchSet", "ExpectColumnMeanToBeBetween", "ExpectColumnPairValuesToBeEqual"
UNIQUE_SHARE = "ExpectColumnProportionOfUniqueValuesToBeBetween"


def column_rule(columns: Sequence[str], stage: str) -> Rule:
    """The columns that the other rules read. stage: that wrote the table."""
    rule = table_rule(COLUMNS, "later rules read these columns", column_set=list(columns), exact_match=False)
    return rule.because("", written_by(stage))


def key_rules(stage: str) -> list[Rule]:
    """Every row has a name of its own and a split."""
    rules = [
        table_rule(NOT_NULL, "a document is named by its key", column="key"),
        table_rule(UNIQUE, "two documents of one name cannot be told apart", column="key"),
        table_rule(NOT_NULL, "every document belongs to a split", column="split"),
        table_rule(IN_SET, "no stage reads another split", column="split", value_set=list(SPLITS)),
    ]
    return [rule.because("", f"{rule.reason}; {written_by(stage)}") for rule in rules]


def not_null(columns: Sequence[str], reason: str, stage: str) -> list[Rule]:
    """Each column has a value in every row."""
    cause = f"{reason}; {written_by(stage)}"
    return [table_rule(NOT_NULL, reason, column=column).because("", cause) for column in columns]


def written_by(stage: str) -> str:
    """The cause of a table that no run of `stage` as it is can have written."""
    return f"the table was changed, or written by another version of {stage}; run {stage} again"
