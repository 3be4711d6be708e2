"""Faults of training are really injected and survived, and a curve that is not the undisturbed one is seen to be another."""

from __future__ import annotations

import json
import math
import secrets
from pathlib import Path

import pytest

from benchmarks.faults import __main__ as faults
from benchmarks.faults.training import command
from benchmarks.faults.training.curves import Curve, Difference, difference, different_bits, whole_epochs
from benchmarks.faults.training.trials import Found, Lab, Trial

NUMBERS = {1: {"train/loss": 2.0, "validation/loss": 1.0}, 2: {"train/loss": 1.5}}
ROWS = {1: [0, 1], 2: [2, 0]}


def test_killed_and_damaged_trainings_go_on_to_the_same_bits(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    seed, out = secrets.randbits(20), tmp_path / "faults.json"
    code = faults.main(["training", "--quick", "--only", "T1,T4,T6", "--seed", str(seed), "--out", str(out)])
    *lines, last = capsys.readouterr().out.splitlines()
    print(f"seed {seed}", *lines, sep="\n")
    assert code == 0
    result = json.loads(last)
    assert result == json.loads(out.read_text())
    assert [line.split()[0] for line in lines] == ["T1", "T4", "T6"] == list(result["faults"])
    assert result["kills_tried"] == result["kills_survived"] == 5
    assert result["bits_of_difference"] == result["samples_lost"] == result["samples_doubled"] == 0
    assert result["flipped_bytes_found"] == result["flipped_bytes"] > 0


def test_a_miss_fails_the_command_and_a_later_run_adds_to_the_results(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = str(tmp_path / "faults.json")
    found = {"T1": Found([Trial(), Trial("it was lost", bits=3)])}
    found["T8"] = Found([Trial(recovery_s=1.5)], {"outage_seconds_blocked": 0.5})
    for name, each in found.items():
        monkeypatch.setitem(command.FAULTS, name, command.Fault("made", lambda lab, each=each: each))
    assert faults.main(["training", "--only", "T1", "--out", out]) == 1
    first, second, _ = capsys.readouterr().out.splitlines()
    assert first.startswith("T1 made | injected 2 | survived 1 | samples lost 0 | samples doubled 0 | bits of difference 3")
    assert second == "T1 missed: it was lost"
    assert faults.main(["training", "--only", "T8", "--out", out]) == 0
    kept = json.loads(Path(out).read_text())
    assert list(kept["faults"]) == ["T1", "T8"] and kept["faults"]["T8"]["recovery_s"] == 1.5
    assert (kept["kills_tried"], kept["kills_survived"], kept["outage_seconds_blocked"]) == (2, 1, 0.5)


def test_every_bit_of_a_curve_counts() -> None:
    expected = Curve(NUMBERS, ROWS)
    assert difference(expected, expected) == Difference(0, 0, 0)
    other = NUMBERS | {2: {"train/loss": math.nextafter(1.5, 2)}}
    assert difference(expected, Curve(other, ROWS)) == Difference(1, 0, 0)
    assert difference(expected, Curve({1: NUMBERS[1]}, {1: ROWS[1]})) == Difference(64, 2, 0)
    assert difference(Curve({1: NUMBERS[1]}, {1: ROWS[1]}), expected) == Difference(64, 0, 2)
    assert difference(expected, Curve(NUMBERS, ROWS | {2: [0, 2]})).bits == 1, "the order counts too"
    assert difference(expected, Curve(NUMBERS, ROWS | {2: [2, 1]})) == Difference(0, 1, 1)
    assert different_bits(0.0, -0.0) == 1 and different_bits(math.nan, math.nan) == 0 and different_bits(None, 1.0) == 64


def test_an_epoch_has_every_row_once() -> None:
    assert whole_epochs({1: [0, 1], 2: [2, 2], 3: [0, 1], 4: [1]}, 3) == (0, 0)
    assert whole_epochs({1: [0, 1], 2: [1, 2]}, 3) == (1, 1)


def test_the_list_is_whole(tmp_path: Path) -> None:
    assert set(command.KILLS) < set(command.FAULTS)
    assert Lab(tmp_path, quick=True, kills=0, seed=1).number(20, 2) == 2
