"""make repro says why it stopped, works in a folder of any name, and make clean removes the stages' outputs alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.pipelines.stage_process import REPOSITORY

ODD = "a folder's $x #1 'ü \"q\" (new) 50% & co"
# Never makes an environment: what stands in for it counts as up to date.
MAKE = ("make", "-o", ".venv/.complete")
# Two stages of the graph's form: one that writes and prints, one that fails in words of its own.
GRAPH = """
stages:
  first:
    cmd: {python} -c "import pathlib; print('written here'); pathlib.Path('out').write_text('x')"
    outs: [out]
  second:
    cmd: {python} -c "import sys; print('its own words', file=sys.stderr); sys.exit({code})"
    deps: [out]
"""
WAITING = """
import pathlib, time
pathlib.Path("begun").touch()
while not pathlib.Path("end").exists():
    time.sleep(0.05)
pathlib.Path("out").touch()
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A clone of this repository in a folder with an odd name, its environment a link, its graph two small stages."""
    project = tmp_path / ODD
    project.mkdir()
    for name in ("pipelines", "components", "export", "model", "core"):
        (project / name).symlink_to(REPOSITORY / name)
    for name in ("Makefile", "params.yaml", "pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, project)
    shutil.copytree(REPOSITORY / ".dvc", project / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"))
    (project / ".venv/bin").mkdir(parents=True)
    (project / ".venv/bin/python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (project / ".venv/bin/python").chmod(0o755)
    (project / ".venv/.complete").touch()
    write_graph(project, 1)
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    return project


def write_graph(project: Path, code: int) -> None:
    (project / "dvc.yaml").write_text(GRAPH.format(python=".venv/bin/python", code=code))


def call(project: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command in the project; GIT_* of a surrounding git command name another repository."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "MAKE"))}
    environment |= {"DVC_NO_ANALYTICS": "1", "GIT_CEILING_DIRECTORIES": str(project.parent), **variables}
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=300, check=False)


def repro(project: Path) -> subprocess.CompletedProcess[str]:
    return call(project, ".venv/bin/python", "-m", "pipelines.repro")


def test_a_failing_stage_is_named_after_its_own_words(project: Path) -> None:
    ended = call(project, *MAKE, "repro")
    assert ended.returncode == 2
    assert ended.stdout.splitlines()[0] == "written here"
    said = [line for line in ended.stderr.splitlines() if not line.startswith("make")]
    assert said[0] == "its own words" and len(said) == 2
    assert said[1].startswith("the graph stopped: failed to reproduce 'second'") and "exited with 1" in said[1]
    assert any((project / ".dvc/tmp/site").iterdir())  # not in a folder that others may write to
    write_graph(project, 2)
    again = repro(project)
    assert again.returncode == 2 and "written here" not in again.stdout  # the first was kept


def test_a_graph_that_is_done_says_nothing(project: Path) -> None:
    write_graph(project, 0)
    first, second = repro(project), repro(project)
    assert (first.returncode, first.stdout, first.stderr) == (0, "written here\n", "its own words\n")
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")


def test_a_cache_that_cannot_be_used(project: Path) -> None:
    shutil.rmtree(project / ".dvc/cache", ignore_errors=True)
    (project / ".dvc/cache").write_text("not a folder")
    ended = repro(project)
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1 and ".dvc/cache" in ended.stderr, ended.stderr


def test_a_damaged_lock_file_of_the_graph(project: Path) -> None:
    (project / "dvc.lock").write_text("schema: '2.0'\nstages: [half")
    ended = repro(project)
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1, ended.stderr
    assert "dvc.lock" in ended.stderr and "git checkout dvc.lock" in ended.stderr


def test_a_graph_that_runs_already(project: Path) -> None:
    (project / "waiting.py").write_text(WAITING)
    (project / "dvc.yaml").write_text("stages: {wait: {cmd: .venv/bin/python waiting.py, outs: [out]}}")
    first = subprocess.Popen([".venv/bin/python", "-m", "pipelines.repro"], cwd=project)
    try:
        while not (project / "begun").exists():
            assert first.poll() is None
            time.sleep(0.02)
        second = repro(project)
    finally:
        (project / "end").touch()
        first.wait(timeout=120)
    assert second.returncode == 1 and second.stderr.count("\n") == 1, second.stderr
    assert second.stderr.startswith("the graph stopped: ") and str(first.pid) in second.stderr
    assert first.returncode == 0


def test_without_git(project: Path, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("make", "sh", "python3"):
        (programs / name).symlink_to(str(shutil.which(name)))
    ended = call(project, *MAKE, "repro", PATH=str(programs))
    assert "git is missing" in ended.stderr and ended.returncode == 2
    shutil.rmtree(project / ".git")
    ended = call(project, *MAKE, "repro")
    assert "git finds no repository here" in ended.stderr and ended.returncode == 2
    assert not ended.stdout
    ended = repro(project)
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1 and "git" in ended.stderr, ended.stderr


def test_clean_leaves_what_is_the_users(project: Path) -> None:
    shutil.copy(REPOSITORY / "dvc.yaml", project)
    kept = ["data/mine.jsonl", "data/corpus/shard.tar", "artifacts/notes.txt", "reports/train/metrics.json", "mlflow.db"]
    gone = ["data/documents/train.parquet", "data/quarantine/latents.jsonl", "artifacts/train/model.safetensors", ".work/a/b"]
    for name in [*kept, *gone]:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).touch()
    (project / "elsewhere").mkdir()
    (project / "elsewhere/latents.safetensors").touch()
    (project / "data/latents").symlink_to(project / "elsewhere")
    ended = call(project, *MAKE, "clean")
    assert ended.returncode == 0, ended.stderr
    left = {str(path.relative_to(project)) for path in project.rglob("*") if not path.is_dir()}
    assert {*kept, "elsewhere/latents.safetensors"} <= left and not left & {*gone, "data/latents"}
    folders = {path.name for path in (project / "data").iterdir()} | {path.name for path in (project / "artifacts").iterdir()}
    assert folders == {"mine.jsonl", "corpus", "notes.txt"}
