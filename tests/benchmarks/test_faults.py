"""Faults are really injected, every one of ours is caught, and the command says so when one is not."""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.faults import __main__ as faults
from benchmarks.faults import outages
from benchmarks.faults.corpora import pairs, tar_bytes
from benchmarks.faults.counts import Counts, Found, Setting, Trial, counted, damaged, flip, total
from benchmarks.faults.killed_encoding import drawn
from benchmarks.faults.recorded_loop import LOSS, PICTURE, VALIDATION, loss
from benchmarks.faults.tars import layouts

TOTALS = set(Counts._fields)


@pytest.mark.parametrize("names", ["D1,D2", "D4,D6,D7,D8", "D14"])
def test_everything_of_ours_is_caught(names: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    before = os.environ.get("TRANSFUSION_NUM_DECODERS"), Path.cwd()
    seed = secrets.randbits(20)
    out = tmp_path / "faults.json"
    code = faults.main(["data", "--quick", "--only", names, "--seed", str(seed), "--out", str(out)])
    assert (os.environ.get("TRANSFUSION_NUM_DECODERS"), Path.cwd()) == before
    *lines, last = capsys.readouterr().out.splitlines()
    print(f"seed {seed}", *lines, sep="\n")
    assert code == 0
    result = json.loads(last)
    assert result == json.loads(out.read_text())
    assert [line.partition(" ")[0] for line in lines] == names.split(",") == list(result["faults"])
    assert result["injected"] == result["caught"] == sum(each["injected"] for each in result["faults"].values()) > 0
    assert result["rows_lost"] == result["rows_doubled"] == result["wrong_bytes_accepted"] == 0
    assert TOTALS <= set(result["defaults"])
    # The same injections do harm where nothing looks: they are real.
    harmed = {name for name, each in result["faults"].items() if any(_harm(counts) for counts in each["defaults"].values())}
    assert harmed >= set(names.split(",")) & {"D1", "D2", "D6", "D7", "D8"}


def test_a_killed_run_has_every_point_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    seed = secrets.randbits(20)
    code = faults.main(["tracking", "--quick", "--only", "M8", "--seed", str(seed), "--out", str(tmp_path / "faults.json")])
    print(f"seed {seed}", said := capsys.readouterr().out)
    assert code == 0
    assert "M8 runs killed on SQLite | injected 1 | caught 1 | rows lost 0 | rows doubled 0" in said


def test_a_point_that_the_store_lacks_or_has_twice_is_counted(tmp_path: Path) -> None:
    run = outages.Run(tmp_path / "run", "sqlite:///mlflow.db", num_steps=40)
    (run.folder / "work").mkdir()
    (run.folder / "work/run.json").write_text('{"run_id": "a"}')
    database, artifacts = run.folder / "mlflow.db", run.folder / "mlartifacts/a"
    (artifacts / "images").mkdir(parents=True)
    (artifacts / f"images/{PICTURE.replace('/', '~')}+step+25+timestamp+1+x.png").touch()
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE metrics (run_uuid, key, step, value)")
        connection.execute("CREATE TABLE runs (run_uuid, status, artifact_uri)")
        connection.execute("INSERT INTO runs VALUES ('a', 'FINISHED', ?)", (artifacts.as_uri(),))
        points = [(LOSS, step, loss(step)) for step in range(1, 41)]
        points += [(VALIDATION, step, -loss(step)) for step in (20, 40)]
        points += [("system/tokens_per_s", step, 1.0) for step in range(1, 41)]
        connection.executemany("INSERT INTO metrics VALUES ('a', ?, ?, ?)", points)
        connection.commit()
        assert outages.judged(run, database, "FINISHED") == Trial()
        assert outages.judged(run, database, "KILLED").missed == "status FINISHED, not KILLED"
        run.blocked_s = 10.0
        assert outages.judged(run, database, "FINISHED").missed == "kept waiting for 10.0 s"
        run.blocked_s = 0.1
        connection.execute("DELETE FROM metrics WHERE step = 7")
        connection.execute("INSERT INTO metrics SELECT * FROM metrics WHERE step = 8")
        connection.commit()
        assert outages.judged(run, database, "FINISHED") == Trial("2 lost, 2 doubled", rows_lost=2, rows_doubled=2)
        (artifacts / f"images/{PICTURE.replace('/', '~')}+step+25+timestamp+2+y.png").touch()
        assert outages.judged(run, database, "FINISHED").rows_doubled == 3


def test_a_miss_fails_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def leak(setting: Setting) -> Found:
        assert not any(setting.folder.iterdir())
        return Found(Counts(2, 1, wrong_bytes_accepted=1), {"tool": Counts(2, 2)}, ("one was read",))

    monkeypatch.setitem(faults.DATA, "D1", faults.Fault("leak", leak))
    assert faults.main(["data", "--only", "D1"]) == 1
    first, second, last = capsys.readouterr().out.splitlines()
    assert first.startswith(
        "D1 leak | injected 2 | caught 1 | rows lost 0 | rows doubled 0 | wrong bytes accepted 1 | defaults: tool"
    )
    assert second == "D1 missed: one was read"
    assert json.loads(last)["defaults"] == Counts(2, 2)._asdict()


def test_an_unknown_fault_is_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert faults.main(["data", "--only", "D1,D99"]) == 2
    assert "D99" in capsys.readouterr().err


def test_every_fault_of_the_list_has_its_function() -> None:
    assert list(faults.DATA) == [f"D{number}" for number in range(1, 16)]
    assert len({fault.inject for fault in faults.DATA.values()}) == 15


def test_nothing_passes_for_damage_that_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"right")
    with pytest.raises(AssertionError, match="nothing was injected"), damaged(path, b"right"):
        pass
    with pytest.raises(AssertionError, match="nothing was injected"):
        flip(b"right", 0, 0)
    path.chmod(0o444)
    with damaged(path, flip(b"right", 2, 1)):
        assert path.read_bytes() == b"rifht"
        assert path.stat().st_mode & 0o777 == 0o444
    assert path.read_bytes() == b"right"


def test_counts_add_up() -> None:
    trials = [Trial(), Trial("let through", rows_lost=2, rows_doubled=3, wrong_bytes=1)]
    assert counted(trials) == Counts(2, 1, 2, 3, 1)
    assert total([counted(trials), Counts(5, 5)]) == Counts(7, 6, 2, 3, 1)
    assert not faults.is_clean(Counts(2, 2, rows_doubled=1))
    assert faults.is_clean(Counts(2, 2))


def test_the_places_in_a_tar_are_where_tar_has_them() -> None:
    data = tar_bytes(pairs(range(3)))
    places = layouts(data)
    assert places[0].header == 0
    assert [one.next for one in places[:-1]] == [other.header for other in places[1:]]
    assert data[places[1].data : places[1].end] == b"picture number 0"
    assert data[places[0].data : places[0].data + 4] == b"\x89PNG"


def _harm(counts: dict[str, int]) -> int:
    return counts["injected"] - counts["caught"]


def test_as_many_kills_of_either_kind_are_drawn() -> None:
    targets = drawn(10, 1)
    assert sorted(targets) == ["driver"] * 10 + ["worker"] * 10
    assert targets != sorted(targets)
    assert targets == drawn(10, 1)
