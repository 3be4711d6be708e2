"""MLflow is told what a run is, the few parameters that are compared, and what this run changed."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path

import pytest

from pipelines import described, evaluation_run, paths
from pipelines.params import load
from tests.pipelines.stage_process import REPOSITORY

ALWAYS = {"corpora", *described.COMPARED}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the demonstration's parameters in its commit."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_EXP_BASELINE_REV", raising=False)
    shutil.copy(REPOSITORY / paths.PARAMS, tmp_path)
    for command in (["init", "-q", "."], ["add", "-A"], ["commit", "-qm", "a project"]):
        subprocess.run(["git", "-c", "user.email=a@example.org", "-c", "user.name=a", *command], check=True)
    return tmp_path


def test_a_run_that_changed_nothing_has_the_compared_parameters_alone(project: Path) -> None:
    about = described.training(load(paths.PARAMS))
    assert about.name == "demo flow, 1,500 steps, seed 17"
    assert set(about.params) == ALWAYS
    assert about.params["train.max_steps"] == 1500 and about.params["corpora"] == "scenes, prose"
    assert "`params.yaml`: nothing." in about.note


def test_what_a_run_changed_is_logged_and_said(project: Path) -> None:
    changed = ["train.max_steps=500", "encode.row_length=128", "evaluate.guidance_scale=6", "train.loss.z_loss_weight=0.1"]
    params = load(paths.PARAMS, changed)
    about = described.training(params)
    assert set(about.params) == ALWAYS | {"encode.row_length", "train.loss.z_loss_weight"}, "an evaluation's is no training's"
    assert "`train.max_steps` 1500 -> 500" in about.note and "`encode.row_length` 256 -> 128" in about.note
    evaluation = evaluation_run.described(params, about.name)
    assert evaluation.name == "evaluation of demo flow, 500 steps, seed 17 (guidance 6, 20 steps)"
    assert evaluation.params["evaluate.guidance_scale"] == 6 and evaluation.params["trained"] == about.name
    assert not [name for name in evaluation.params if name.startswith("train.")]
    assert "`evaluate.guidance_scale` 4.0 -> 6" in evaluation.note


def test_of_corpora_what_differs_is_said_by_name(project: Path) -> None:
    params = load(paths.PARAMS)
    scenes, prose = params.ingest.corpora
    other = dataclasses.replace(prose, path="elsewhere")
    for corpora, wanted in (
        ((scenes, other), f"`ingest.corpora.prose.path` {prose.path} -> elsewhere"),
        ((dataclasses.replace(scenes, name="mine"), prose), "`ingest.corpora` with mine, `ingest.corpora` without scenes"),
        ((prose, scenes), "`ingest.corpora` in another order"),
    ):
        ingest = dataclasses.replace(params.ingest, corpora=corpora)
        note = described.training(dataclasses.replace(params, ingest=ingest)).note
        assert f"`params.yaml`: {wanted}." in note


def test_the_whole_is_kept_beside_and_reads_as_parameters(project: Path) -> None:
    params = load(paths.PARAMS, ["train.max_steps=500"])
    whole = project / "whole.yaml"
    whole.write_text(described.training(params).params_yaml)
    assert load(whole) == params


@pytest.mark.parametrize("text", [None, "of: another version\n"])
def test_without_usable_committed_parameters_no_change_is_claimed(project: Path, text: str | None) -> None:
    params = load(paths.PARAMS)
    if text is None:
        shutil.rmtree(project / ".git")
    else:
        (project / paths.PARAMS).write_text(text)
        subprocess.run(["git", "-c", "user.email=a@example.org", "-c", "user.name=a", "commit", "-qam", "other"], check=True)
    about = described.training(params)
    assert set(about.params) == ALWAYS
    assert "is not known" in about.note
