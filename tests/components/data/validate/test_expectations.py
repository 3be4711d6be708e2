"""A gate refuses what it must, sets aside single rows with their reason, and says the same for the same table."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from components.data.validate.expectations import validate_table
from components.data.validate.results import ValidationResult
from components.data.validate.rules import Check, Minimum, row_rule, table_rule, warning_rule


def table(**columns: list[Any]) -> pd.DataFrame:
    return pd.DataFrame({"key": [f"k{n}" for n in range(len(next(iter(columns.values()))))], **columns})


SMALL = row_rule("ExpectColumnValuesToBeBetween", "sizes above 9 do not fit", column="size", max_value=9)
ROWS = table_rule("ExpectTableRowCountToBeBetween", "nothing to learn from", min_value=2)
NOT_NULL = table_rule("ExpectColumnValuesToNotBeNull", "needed by name", column="name")
MANY = warning_rule("ExpectTableRowCountToBeBetween", "few rows teach little", min_value=5)


def decide(
    frame: pd.DataFrame, *rules: Any, share: float = 0.5, minimums: tuple[Minimum, ...] = (), docs: Path | None = None
) -> ValidationResult:
    return validate_table(Check("things", frame, rules), minimums, max_quarantined_share=share, docs=docs)


def test_a_good_table_passes() -> None:
    result = decide(table(size=[1, 2, 9], name=["a", "b", "c"]), SMALL, ROWS, NOT_NULL)
    assert result.passed
    assert not result.quarantined
    assert [result.success for result in result.results] == [True] * 3


def test_bad_rows_are_set_aside_each_once_with_value_and_reason() -> None:
    again = row_rule("ExpectColumnValuesToBeInSet", "only known names are read", column="name", value_set=["a", "b"])
    result = decide(table(size=[1, 12, 3, 4], name=["a", "x", "b", "y"]), SMALL, again)
    assert result.passed
    assert result.quarantined_share == 0.5
    assert [tuple(entry) for entry in result.quarantined] == [
        ("k1", "size = 12: sizes above 9 do not fit; name = x: only known names are read"),
        ("k3", "name = y: only known names are read"),
    ]


def test_bad_rows_stand_in_the_order_of_the_table() -> None:
    small = row_rule("ExpectColumnValuesToBeBetween", "sizes below 0 are no sizes", column="size", min_value=0)
    result = decide(table(size=[1, -1, 30, -2, 12]), SMALL, small, share=1.0)
    assert [entry.key for entry in result.quarantined] == ["k1", "k2", "k3", "k4"]


def test_a_table_without_keys_is_refused_and_names_no_row() -> None:
    frame = pd.DataFrame({"size": [1, 12]})
    columns = table_rule("ExpectTableColumnsToMatchSet", "rows need names", column_set=["key"], exact_match=False)
    result = decide(frame, columns, SMALL, share=1.0)
    assert "rows need names" in result.refusals[0]
    assert not result.quarantined


def test_too_many_bad_rows_refuse_and_are_named() -> None:
    result = decide(table(size=[1, 12, 3, 40]), SMALL, share=0.49)
    (sentence,) = result.refusals
    assert "2 of 4 rows are set aside" in sentence
    assert "above validate.things.max_quarantined_share 0.49: 2 of them because sizes above 9" in sentence
    assert "k1 (size = 12: sizes above 9 do not fit)" in sentence


def test_a_table_rule_refuses_at_once_and_names_the_rows() -> None:
    result = decide(table(name=["a", None, "c"]), NOT_NULL, share=1.0)
    (sentence,) = result.refusals
    assert sentence == "things: column name is missing in 1 row (k1): needed by name"


def test_a_warning_is_told_and_does_not_stop() -> None:
    result = decide(table(size=[1, 2]), SMALL, ROWS, MANY)
    assert result.passed
    (sentence,) = result.warnings
    assert sentence == "things: the number of rows, 2, is below 5: few rows teach little"
    assert [result.severity for result in result.results] == ["warning", "critical", "warning"]
    assert result.to_dict()["warnings"] == [sentence]
    both = decide(table(size=[1]), ROWS, MANY)
    assert (len(both.refusals), len(both.warnings)) == (1, 1)
    assert not decide(table(size=[1] * 5), MANY).warnings


def test_a_warning_that_cannot_be_evaluated_is_a_warning() -> None:
    rule = warning_rule("ExpectColumnMeanToBeBetween", "rows of another kind", column="weight", min_value=1)
    result = decide(table(size=[1]), rule)
    assert result.passed
    assert "could not be evaluated" in result.warnings[0]


def test_an_empty_table_fails_its_floor_though_every_other_rule_holds() -> None:
    result = decide(table(size=[], name=[]), SMALL, NOT_NULL, ROWS, share=1.0)
    assert [result.success for result in result.results] == [True, True, False]
    assert result.refusals == ["things: the number of rows, 0, is below 2: nothing to learn from"]


def test_a_rule_that_cannot_be_evaluated_refuses_even_for_rows() -> None:
    result = decide(table(name=["a"]), SMALL, share=1.0)
    (sentence,) = result.refusals
    assert "could not be evaluated" in sentence
    assert "size" in sentence
    assert not result.quarantined


def test_floors_count_what_is_left_of_each_part() -> None:
    frame = table(size=[1, 1, 1, 12], split=["a", "a", "b", "b"])
    minimums = tuple(Minimum(f"things-{split}", {"split": split}, [ROWS]) for split in ("a", "b", "none"))
    result = decide(frame, SMALL, minimums=minimums)
    assert [result.observed for result in result.results[1:]] == [2, 1, 0]
    assert [sentence.split(":")[0] for sentence in result.refusals] == ["things-b", "things-none"]
    missing = "without the 1 that were set aside before (1 because sizes above 9 do not fit)"
    assert [missing in sentence for sentence in result.refusals] == [True, False]


def test_a_sentence_says_what_was_seen_the_bound_its_parameter_and_the_cause() -> None:
    told = {"what": "the fill", "cause": "rows are long; shorten them"}
    fill = table_rule("ExpectColumnValuesToBeBetween", "why", column="fill", min_value=0.9, max_value=1.1)
    fill = fill.because(told["what"], told["cause"], min_value="a.min_fill", max_value="a.max_fill")
    for value, bound in ((0.883, "below a.min_fill 0.9"), (1.25, "above a.max_fill 1.1")):
        (sentence,) = decide(table(fill=[value]), fill).refusals
        assert sentence == f"things: the fill, {value}, is {bound}: rows are long; shorten them"
    (sentence,) = decide(table(fill=[0.5, 1.0, 1.2]), fill).refusals
    assert "the fill is below a.min_fill 0.9 or above a.max_fill 1.1 in 2 rows (k0: 0.5, k2: 1.2): rows are long" in sentence
    mean = table_rule("ExpectColumnMeanToBeBetween", "why", column="fill", min_value=-0.5, max_value=0.5)
    (sentence,) = decide(table(fill=[2.0, 1.0]), mean.because("the mean", "", max_value="a.max_mean")).refusals
    assert sentence == "things: the mean, 1.5, is farther from 0 than a.max_mean 0.5: why"
    row = SMALL.because("", "boxes; open them", max_value="a.max_size")
    result = decide(table(size=[12, 3]), row)
    assert result.quarantined[0].reason == "size = 12, above a.max_size 9: sizes above 9 do not fit"
    (sentence,) = decide(table(size=[12, 3]), row, share=0.4).refusals
    assert "above validate.things.max_quarantined_share 0.4: 1 of them because sizes above 9 do not fit; boxes;" in sentence


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
    assert [result["severity"] for result in report["findings"]] == ["warning", "critical", "critical"]
    assert [result["reason"] for result in report["findings"]] == [rule.reason for rule in (SMALL, NOT_NULL, ROWS)]
    assert report["passed"] is False
    assert len(report["refusals"]) == 2


class Loads(HTMLParser):
    """What a browser would fetch to show a page (links that are clicked do not count), and what one can read of it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.found, self.words = set[str](), list[str](), list[str]()
        self.feed(page)
        self.found += re.findall(r"url\(['\"]?([^'\")]+)", page) + re.findall(r"@import\s+['\"]([^'\"]+)", page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("src", "srcset", "data", "poster", "action", "background") or (name == "href" and tag == "link"):
                self.found.append(value or "")

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.mark.parametrize("size", [5, 50])
def test_data_docs_tell_rules_and_reasons_without_a_network(tmp_path: Path, size: int) -> None:
    docs = tmp_path / "a folder's $name #1 ${x} é" / "docs"
    docs.mkdir(parents=True)
    (docs / "left-over.html").write_text("from an earlier run")
    decide(table(size=[size, 1]), SMALL, ROWS, MANY, docs=docs, minimums=(Minimum("part", {"size": 1}, [ROWS]),))
    pages = {page: Loads(page.read_text()) for page in docs.rglob("*.html")}
    assert docs / "left-over.html" not in pages
    for page, loads in pages.items():
        assert not {"script", "iframe", "object"} & loads.tags, page
        for name in loads.found:
            assert not name.startswith(("http:", "https:", "//")), (page, name)
            assert (page.parent / name).is_file(), (page, name)
    assert sum(file.stat().st_size for file in docs.rglob("*")) < 500_000
    index = " ".join(pages[docs / "index.html"].words)
    for words in ("sizes above 9 do not fit", "nothing to learn from", "few rows teach little", "Warnings", "part"):
        assert words in index
    assert ("k0" in index) == (size == 50)
    (validation,) = [" ".join(pages[page].words) for page in docs.glob("validations/things/**/*.html")]
    assert "less than or equal to" in validation
    assert ("unexpected value" in validation) == (size == 50)
    assert "sizes above 9 do not fit" in " ".join(pages[docs / "expectations/things.html"].words)
    links = re.findall(r'href="([^"]+)"', (docs / "index.html").read_text())
    assert any(link.startswith("validations/things/") for link in links)
    assert all((docs / link).is_file() for link in links)


def test_no_name_in_a_corpus_becomes_a_part_of_the_pages(tmp_path: Path) -> None:
    """A key or a value is text, whatever it spells, in our index and in Great Expectations' own pages."""
    hostile = [
        '<img src="http://127.0.0.1/a.png">',
        "<script>alert(1)</script>",
        "'\"><iframe src=//x></iframe>",
        "../../x",
        "&lt;$a ${b}",
    ]
    frame = pd.DataFrame({"key": hostile, "name": hostile, "size": [50] * 5})
    known = row_rule("ExpectColumnValuesToBeInSet", "only known names are read", column="name", value_set=["a"])
    result = decide(frame, SMALL, known, share=0.1, docs=tmp_path / "docs")
    assert [entry.key for entry in result.quarantined] == hostile
    assert [row["name"] for row in result.results[1].rows] == hostile
    for page in (tmp_path / "docs").rglob("*.html"):
        loads = Loads(page.read_text())
        assert not {"script", "iframe"} & loads.tags, page
        assert not [name for name in loads.found if "127.0.0.1" in name or name.startswith("//")], page
    index = " ".join(Loads((tmp_path / "docs/index.html").read_text()).words)
    assert all(name in index for name in hostile)
