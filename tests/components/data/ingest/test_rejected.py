"""Rejected records are listed, and their share stops the stage exactly above its limit."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from components.data.ingest.rejected import Rejected, RejectedFile, refuse_above
from core.errors import GateRefused

PATH = Path("file.jsonl")


def refuse(max_share: float, reasons: dict[str, int], num_kept: int) -> None:
    num_records = sum(reasons.values()) + num_kept
    refuse_above(
        max_share,
        reasons,
        num_records,
        what="the corpus 'web'",
        file=PATH,
        first="a.jsonl line 7",
        key="ingest.max_rejected_share",
    )


@pytest.mark.parametrize(
    ("max_share", "num_rejected", "num_kept"), [(0.0, 0, 10), (0.1, 1, 9), (0.5, 5, 5), (1.0, 5, 0), (0.0, 0, 0)]
)
def test_a_share_up_to_the_limit_passes(max_share: float, num_rejected: int, num_kept: int) -> None:
    assert num_rejected <= max_share * (num_rejected + num_kept), "the case itself lies above its limit"
    assert refuse(max_share, {"broken JSON": num_rejected}, num_kept) is None


@pytest.mark.parametrize(("max_share", "num_rejected", "num_kept"), [(0.0, 1, 1000), (0.1, 2, 9), (0.99, 5, 0)])
def test_a_share_above_the_limit_refuses(max_share: float, num_rejected: int, num_kept: int) -> None:
    with pytest.raises(GateRefused):
        refuse(max_share, {"broken JSON": num_rejected}, num_kept)


def test_the_refusal_names_corpus_reasons_file_and_parameter() -> None:
    with pytest.raises(GateRefused) as caught:
        refuse(0.1, {"broken JSON": 3, "missing caption": 5}, 2)
    sentence = str(caught.value)
    for part in (
        "8 of 10",
        "'web'",
        "missing caption (5), broken JSON (3)",
        "file.jsonl lists them, the first at a.jsonl line 7",
        "ingest.max_rejected_share",
    ):
        assert part in sentence


def test_the_refusal_says_what_to_do_about_its_most_frequent_reason() -> None:
    for reason, words in (
        ("invalid UTF-8", "iconv -f LATIN1 -t UTF-8"),
        ("duplicate key", "corpora of their own"),
        ("missing caption", "words in it; .* format jsonl"),
        ("missing image", "README.txt"),
    ):
        with pytest.raises(GateRefused, match=words):
            refuse(0.1, {reason: 3, "a rare one": 1}, 2)


def test_the_refusal_names_the_ten_most_frequent_reasons() -> None:
    with pytest.raises(GateRefused) as caught:
        refuse(0.1, {f"reason {chr(97 + n)}": 2 + n for n in range(13)}, 0)
    sentence = str(caught.value)
    assert [chr(97 + n) for n in range(13) if f"reason {chr(97 + n)} ({2 + n})" in sentence] == list("defghijklm")
    assert "and 3 more reasons" in sentence
    assert sentence.index("reason m (14)") < sentence.index("reason d (5)")


def test_the_file_lists_each_record_and_is_empty_without_any(tmp_path: Path) -> None:
    some, none = tmp_path / "new folder/some.jsonl", tmp_path / "none.jsonl"
    with RejectedFile(some) as file:
        for index in range(3):
            file.add(Rejected("web", f"a.jsonl line {index}", "broken JSON" if index else "invalid UTF-8"))
        assert not some.exists()
    assert file.reasons == {"web": Counter({"broken JSON": 2, "invalid UTF-8": 1})}
    assert file.first == {"web": "a.jsonl line 0"}
    lines = [json.loads(line) for line in some.read_text().splitlines()]
    assert [line["position"] for line in lines] == [f"a.jsonl line {index}" for index in range(3)]
    assert lines[0] == {"source": "web", "position": "a.jsonl line 0", "reason": "invalid UTF-8"}
    with RejectedFile(none):
        pass
    assert none.read_bytes() == b""
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["none.jsonl", "some.jsonl"]


def test_records_are_listed_when_the_stage_fails(tmp_path: Path) -> None:
    def fail() -> None:
        with RejectedFile(tmp_path / "some.jsonl") as file:
            file.add(Rejected("web", "here", "broken JSON"))
            refuse(0.5, dict(file.reasons["web"]), 0)

    with pytest.raises(GateRefused):
        fail()
    assert len((tmp_path / "some.jsonl").read_text().splitlines()) == 1
