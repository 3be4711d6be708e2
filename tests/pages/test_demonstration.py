"""The demonstration's corpora become measured weights under DVC, in a fresh clone, though the training is killed on the way.

At tiny size, and as far as the evaluation: what follows it is run with the next corpus.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import pytest

from benchmarks.faults.repro import TINY, set_params
from components.evaluation.metrics import HEADLINE
from core.files import digest
from pipelines.params import load
from tests.components.evaluation.test_report import PROMISED
from tests.pages.commands import ACTIVATE
from tests.pages.project import (
    FEW_STEPS,
    ended,
    kill_tree,
    killed_on_failure,
    ran,
    report,
    stages_run,
    start,
    that_say_where_they_were_made,
)

SMALL: dict[str, Any] = (
    TINY
    | FEW_STEPS
    | {
        # Enough to be killed on the way, also where other programs want the cores.
        "train.max_steps": 400,
        "train.checkpoint_every_steps": 20,
        "train.sample_every_steps": 200,
        "train.log_every_steps": 20,
        "train.validate_every_steps": 200,
        "evaluate.num_seen_scenes": 8,
        "evaluate.num_kept_out_scenes": 8,
        "evaluate.num_captions": 8,
    }
)
NAMED_METRICS = {*PROMISED, "text/ngram_bits_per_byte"}


class Demonstration(NamedTuple):
    """said: by the run after the one that was killed."""

    project: Path
    said: str


@pytest.fixture(scope="module")
def demonstration(copy: Path) -> Demonstration:
    """SIGKILL to dvc and to everything it started, once a checkpoint stands; then the same command to its end."""
    set_params(copy / "params.yaml", SMALL)
    lines = (ACTIVATE, "dvc repro evaluate")
    started = start(copy, *lines)
    with killed_on_failure(started):
        while not list((copy / ".work/train").rglob("step-*/manifest.json")):
            assert started.process.poll() is None, "ended without a checkpoint"
            time.sleep(0.02)
    kill_tree(started.process)
    assert not (copy / "artifacts/train").exists()
    return Demonstration(copy, ran(copy, *lines))


@pytest.mark.timeout(1800)
def test_a_killed_training_goes_on_from_its_last_checkpoint(demonstration: Demonstration) -> None:
    assert "resumed from step" in demonstration.said
    assert stages_run(demonstration.said) == ["inputs", "train", "evaluate"]


def test_every_figure_is_there(demonstration: Demonstration) -> None:
    metrics = report(demonstration.project, "evaluate/metrics.json")
    assert set(metrics) >= NAMED_METRICS
    assert all(isinstance(value, float) for value in metrics.values())


def test_the_run_is_in_mlflow(demonstration: Demonstration) -> None:
    run_id = json.loads((demonstration.project / "artifacts/train/run.json").read_text())["run_id"]
    client = mlflow.MlflowClient(f"sqlite:///{demonstration.project}/mlflow.db")
    run = client.get_run(run_id)
    assert {"train/loss_text", "train/loss_image"} <= set(run.data.metrics)
    (evaluation,) = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'")
    assert "text/bits_per_byte" in evaluation.data.metrics and "text/bits_per_byte" not in run.data.metrics
    assert run.info.status == "FINISHED" and run.info.end_time
    assert run.info.end_time <= evaluation.info.start_time, "later stages leave the training's run as it ended"
    assert run.data.params["train.max_steps"] == "400"
    assert run.inputs is not None and run.inputs.dataset_inputs, "no dataset lineage"
    assert any("samples" in file.path or "images" in file.path for file in client.list_artifacts(run_id))


def test_the_summary_prints_the_headline_and_what_is_missing_yet(demonstration: Demonstration) -> None:
    code, said = ended(start(demonstration.project, ACTIVATE, "python -m pipelines.summary"))
    # Eight captions are too few for CIDEr.
    measured = set(HEADLINE.values()) & set(report(demonstration.project, "evaluate/metrics.json"))
    assert len(measured) >= len(HEADLINE) - 1 and all(name in said for name in measured)
    assert code == 1 and "reports/export/parity.json is missing" in said


def test_no_output_says_where_it_was_made(demonstration: Demonstration) -> None:
    assert not that_say_where_they_were_made(demonstration.project)


def test_recipes_are_trained_and_measured_as_the_graph_does_it(demonstration: Demonstration) -> None:
    def recipes() -> str:
        line = "python -m benchmarks.recipes --only flow --threads 1 --seeds 3 --out found.json"
        return ran(demonstration.project, ACTIVATE, line)

    # What many steps come to is seen by the graph's own training.
    set_params(demonstration.project / "params.yaml", {"train.max_steps": 20})
    first = recipes()
    found = json.loads((demonstration.project / "found.json").read_text())["recipes"]["flow"]["3"]
    assert set(found["metrics"]) == set(report(demonstration.project, "evaluate/metrics.json"))
    params = load(demonstration.project / "params.yaml", ["train.seed=3"])
    assert found["digest"] == digest([asdict(params.train), asdict(params.evaluate)]), "of that seed, and else the project's"
    again = recipes()
    assert "step" in first and "step" not in again, "what is there already is not trained again"
    assert again.splitlines() == first.splitlines()[-2:], "the table, alone"
