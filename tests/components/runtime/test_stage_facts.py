"""How a stage ran is noted beside the reports, and nothing of it names the machine or fails the stage."""

from __future__ import annotations

import platform
import socket
import subprocess
from pathlib import Path

import pytest

from components.runtime import stage_facts
from components.runtime.provenance import git
from components.runtime.stage_facts import processor, versions
from core.files import read_json
from pipelines import paths, stage


def test_a_stage_that_ends_well_is_noted_with_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("encode", "inputs", "report"):
        assert stage.execute(name, lambda: None) == 0

    def failing() -> None:
        raise KeyboardInterrupt

    assert stage.execute("train", failing) == 130
    assert [path.name for path in paths.RAN.iterdir()] == ["encode.json"]
    found = read_json(paths.RAN / "encode.json")
    assert 0 <= found["seconds"] < 60 and found["ended"].endswith(" UTC")
    assert found["machine"]["cores"] >= 1 and found["machine"]["memory_gib"] > 0
    assert found["code"] == {}, "there is no repository here"
    said = (paths.RAN / "encode.json").read_text()
    assert str(tmp_path) not in said and socket.gethostname() not in said


def test_a_disk_that_takes_no_note_costs_no_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths.REPORTS.touch()
    done = list[str]()
    assert stage.execute("train", lambda: done.append("trained")) == 0
    assert done == ["trained"] and paths.REPORTS.read_text() == ""


def test_the_processor_has_its_name(tmp_path: Path) -> None:
    facts = tmp_path / "cpuinfo"
    facts.write_text("processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\nmodel name\t: another\n")
    assert processor(facts) == "Some CPU @ 2.00GHz"
    assert processor(tmp_path / "missing") == (platform.processor() or platform.machine())


def test_versions_are_of_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_facts, "PACKAGES", ("torch", "nobody-has-this"))
    assert set(versions()) == {"python", "torch"}


def test_the_commit_is_the_one_that_the_stage_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    commit = ("git", "-c", "user.name=me", "-c", "user.email=me@example.org", "commit", "-qm", "a", "--allow-empty")
    for command in (("git", "init", "-q"), commit):
        subprocess.run(command, check=True)
    began = git("rev-parse", "HEAD").strip()

    def committing() -> None:
        subprocess.run((*commit[:-2], "b", commit[-1]), check=True)

    assert stage.execute("encode", committing) == 0
    assert git("rev-parse", "HEAD").strip() != began
    assert read_json(paths.RAN / "encode.json")["code"] == {"commit": began, "differs": False}
