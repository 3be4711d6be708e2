"""The benchmark of training runs from end to end, and one part's result leaves the others' alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.training.__main__ import main, merged
from components.data.loader import PackedRows
from components.training.transformer.config import TrainConfig
from tests.components.training.conftest import CONFIG, Corpus


def test_slow_reading_is_measured(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.training import overlap

    class Read:
        train: TrainConfig = CONFIG

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(overlap, "load", lambda path: Read)
    monkeypatch.setattr(overlap, "PackedRows", lambda folder, split, quarantine: PackedRows(corpus.latents, split, None))
    assert main(["--quick", "--threads", "1", "--out", str(tmp_path / "training.json")]) == 0
    found = json.loads((tmp_path / "training.json").read_text())
    assert found["overlap_ratio"] > 0 and found["in_turn_ratio"] > 0
    assert found["parts"]["overlap"]["steps"] == overlap.NUM_QUICK_STEPS


def test_parts_are_kept_one_by_one() -> None:
    old = {"overlap_ratio": 1.0, "checkpoint_block_ratio": 6.0, "parts": {"overlap": {"steps": 1}, "checkpoints": {}}}
    new = {"overlap_ratio": 1.02, "parts": {"overlap": {"steps": 36}}}
    expected = {"overlap_ratio": 1.02, "checkpoint_block_ratio": 6.0, "parts": {"overlap": {"steps": 36}, "checkpoints": {}}}
    assert merged(old, new) == expected
