"""A run says whether its code is that of its commit, whatever else stands in the folder."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from components.runtime.provenance import committed, origin_tags

DIRTY = "mlflow.source.git.dirty"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"):
        monkeypatch.delenv(name, raising=False)
    for name in ("pipelines", "reports", "core"):
        (tmp_path / name).mkdir()
    for name in ("pipelines/train.py", "core/files.py", "dvc.yaml", "dvc.lock", "params.yaml", "reports/metrics.json"):
        (tmp_path / name).write_text("a: 1\n")
    git("init", "-q", ".")
    commit("a project")
    return tmp_path


def git(*arguments: str) -> None:
    subprocess.run(["git", "-c", "user.email=a@example.org", "-c", "user.name=a", *arguments], check=True)


def commit(message: str) -> None:
    git("add", "-A")
    git("commit", "-qm", message)


def test_what_a_run_writes_leaves_its_code_clean(repository: Path) -> None:
    assert origin_tags()[DIRTY] == "false"
    for name in ("dvc.lock", "reports/metrics.json", "params.yaml", "notes.txt"):
        (repository / name).write_text("a: 2\n")
    assert origin_tags()[DIRTY] == "false"
    assert len(origin_tags()["mlflow.source.git.commit"]) == 40


@pytest.mark.parametrize("name", ["pipelines/train.py", "core/new.py", "dvc.yaml"])
def test_changed_code_is_said(repository: Path, name: str) -> None:
    (repository / name).write_text("a: 2\n")
    assert origin_tags()[DIRTY] == "true"


def test_a_committed_file_is_that_of_the_commit_or_of_the_experiments_baseline(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "params.yaml").write_text("a: 2\n")
    assert committed(Path("params.yaml")) == "a: 1\n"
    commit("another value")
    assert committed(Path("params.yaml")) == "a: 2\n"
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "HEAD~1")
    assert committed(Path("params.yaml")) == "a: 1\n"
    assert committed(Path("none.yaml")) is None
