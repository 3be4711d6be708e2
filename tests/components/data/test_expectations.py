"""Does a gate refuse what it must, set aside single rows with their reason, and say the same for the same table?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from components.data.expectations import Check, Floor, Verdict, judge, row_rule, table_rule


def table(**columns: list[Any]) -> pd.DataFrame:
    return pd.DataFrame({"key": [f"k{n}" for n in range(len(next(iter(columns.values()))))], **columns})


SMALL = row_rule("ExpectColumnValuesToBeBetween", "sizes above 9 do not fit", column="size", max_value=9)
ROWS = table_rule("ExpectTableRowCountToBeBetween", "nothing to learn from", min_value=2)
NOT_NULL = table_rule("ExpectColumnValuesToNotBeNull", "needed by name", column="name")


def decide(
    frame: pd.DataFrame, *rules: Any, share: float = 0.5, floors: tuple[Floor, ...] = (), docs: Path | None = None
) -> Verdict:
    return judge(Check("things", frame, rules), floors, max_quarantined_share=share, docs=docs)


def test_a_good_table_passes() -> None:
    verdict = decide(table(size=[1, 2, 9], name=["a", "b", "c"]), SMALL, ROWS, NOT_NULL)
    assert verdict.passed
    assert not verdict.quarantined
    assert [finding.success for finding in verdict.findings] == [True] * 3


def test_bad_rows_are_set_aside_each_once_with_value_and_reason() -> None:
    again = row_rule("ExpectColumnValuesToBeInSet", "only known names are read", column="name", value_set=["a", "b"])
    verdict = decide(table(size=[1, 12, 3, 4], name=["a", "x", "b", "y"]), SMALL, again)
    assert verdict.passed
    assert verdict.quarantined_share == 0.5
    assert [tuple(entry) for entry in verdict.quarantined] == [
        ("k1", "size = 12: sizes above 9 do not fit; name = x: only known names are read"),
        ("k3", "name = y: only known names are read"),
    ]


def test_too_many_bad_rows_refuse_and_are_named() -> None:
    verdict = decide(table(size=[1, 12, 3, 40]), SMALL, share=0.49)
    (sentence,) = verdict.refusals
    assert "2 of 4 rows" in sentence
    assert "0.49" in sentence
    assert "k1 (size = 12: sizes above 9 do not fit)" in sentence


def test_a_table_rule_refuses_at_once_and_names_the_rows() -> None:
    verdict = decide(table(name=["a", None, "c"]), NOT_NULL, share=1.0)
    (sentence,) = verdict.refusals
    assert "expect_column_values_to_not_be_null (column name) failed on 1 rows (k1): needed by name" in sentence


def test_an_empty_table_fails_its_floor_though_every_other_rule_holds() -> None:
    verdict = decide(table(size=[], name=[]), SMALL, NOT_NULL, ROWS, share=1.0)
    assert [finding.success for finding in verdict.findings] == [True, True, False]
    assert "expect_table_row_count_to_be_between (min_value 2) failed, observed 0" in verdict.refusals[0]


def test_a_rule_that_cannot_be_evaluated_refuses_even_for_rows() -> None:
    verdict = decide(table(name=["a"]), SMALL, share=1.0)
    (sentence,) = verdict.refusals
    assert "could not be evaluated" in sentence
    assert "size" in sentence
    assert not verdict.quarantined


def test_floors_count_what_is_left_of_each_part() -> None:
    frame = table(size=[1, 1, 1, 12], split=["a", "a", "b", "b"])
    floors = tuple(Floor(f"things-{split}", {"split": split}, [ROWS]) for split in ("a", "b", "none"))
    verdict = decide(frame, SMALL, floors=floors)
    assert [finding.observed for finding in verdict.findings[1:]] == [2, 1, 0]
    assert [sentence.split(":")[0] for sentence in verdict.refusals] == ["things-b", "things-none"]


def test_the_report_is_the_same_for_the_same_table() -> None:
    frame = table(size=[1, 12, 30], name=["a", None, "c"])
    reports = [json.dumps(decide(frame, SMALL, NOT_NULL, ROWS).to_dict(), sort_keys=True) for _ in range(2)]
    assert reports[0] == reports[1]
    report = json.loads(reports[0])
    assert report["num_quarantined"] == 2
    assert report["findings"][0]["rows"] == [
        {"size": 12, "key": "k1"},
        {"size": 30, "key": "k2"},
    ]
    assert report["passed"] is False
    assert len(report["refusals"]) == 2


@pytest.mark.parametrize("size", [5, 50])
def test_data_docs_tell_rules_and_reasons_and_ask_no_server_for_a_logo(tmp_path: Path, size: int) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "left-over.html").write_text("from an earlier run")
    decide(table(size=[size, 1]), SMALL, ROWS, docs=docs)
    pages = {str(page.relative_to(docs)): page.read_text() for page in docs.rglob("*.html")}
    assert "index.html" in pages
    assert "left-over.html" not in pages
    (validation,) = [html for name, html in pages.items() if name.startswith("validations/")]
    assert "less than or equal to" in validation
    assert "sizes above 9 do not fit" in pages["expectations/things.html"]
    assert ("unexpected value" in validation) == (size == 50)
    assert not any("great-expectations-web-assets" in html for html in pages.values())
