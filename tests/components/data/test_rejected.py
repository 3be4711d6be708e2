"""Are rejected rows listed, and does the share of them stop the stage exactly above its limit?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.data.rejected import Rejected, refuse_above, write_rejected
from components.runtime.failure import GateRefused

PATH = Path("quarantine.jsonl")


def rows(number: int, reason: str = "broken JSON") -> list[Rejected]:
    return [Rejected("web", f"a.jsonl line {index}", reason) for index in range(number)]


def refuse(max_share: float, rejected: list[Rejected], num_kept: int) -> None:
    refuse_above(max_share, rejected, num_kept, what="the corpus 'web'", quarantine=PATH, key="ingest.max_quarantined_share")


@pytest.mark.parametrize(
    ("max_share", "num_rejected", "num_kept"), [(0.0, 0, 10), (0.1, 1, 9), (0.5, 5, 5), (1.0, 5, 0), (0.0, 0, 0)]
)
def test_a_share_up_to_the_limit_passes(max_share: float, num_rejected: int, num_kept: int) -> None:
    rejected = rows(num_rejected)
    assert num_rejected <= max_share * (num_rejected + num_kept), "the case itself lies above its limit"
    assert refuse(max_share, rejected, num_kept) is None


@pytest.mark.parametrize(("max_share", "num_rejected", "num_kept"), [(0.0, 1, 1000), (0.1, 2, 9), (0.99, 5, 0)])
def test_a_share_above_the_limit_refuses(max_share: float, num_rejected: int, num_kept: int) -> None:
    with pytest.raises(GateRefused):
        refuse(max_share, rows(num_rejected), num_kept)


def test_the_refusal_names_corpus_reasons_file_and_parameter() -> None:
    with pytest.raises(GateRefused) as caught:
        refuse(0.1, rows(3) + rows(5, "missing caption"), 2)
    sentence = str(caught.value)
    for part in (
        "8 of 10",
        "'web'",
        "missing caption (5), broken JSON (3)",
        "quarantine.jsonl",
        "ingest.max_quarantined_share",
    ):
        assert part in sentence


def test_the_file_lists_each_row_and_is_empty_without_any(tmp_path: Path) -> None:
    write_rejected(tmp_path / "some.jsonl", rows(2))
    lines = [json.loads(line) for line in (tmp_path / "some.jsonl").read_text().splitlines()]
    assert lines == [{"source": "web", "position": f"a.jsonl line {index}", "reason": "broken JSON"} for index in range(2)]
    write_rejected(tmp_path / "none.jsonl", [])
    assert (tmp_path / "none.jsonl").read_bytes() == b""
