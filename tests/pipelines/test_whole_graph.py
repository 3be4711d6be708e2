"""The whole graph runs, from corpora to predictions, under DVC: at tiny size, in a fresh copy of the repository.

One copy serves the tests below in order: the run itself, the second run that does nothing, the gate that refuses and loses
nothing, the training that is killed and goes on.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.faults.repro import TINY, set_params

ROOT = Path(__file__).resolve().parents[2]
SMALL = TINY | {
    "train.model.preset": "tiny",
    "train.batch_rows": 4,
    "train.max_steps": 12,
    "train.warmup_steps": 2,
    "train.checkpoint_every_steps": 4,
    "train.sample_every_steps": 6,
    "train.log_every_steps": 2,
    "train.validate_every_steps": 6,
    "train.sampling.num_steps": 2,
    "evaluate.num_seen_scenes": 8,
    "evaluate.num_kept_out_scenes": 8,
    "evaluate.num_captions": 8,
    "evaluate.num_loss_images": 8,
    "evaluate.num_solver_steps": 2,
    "evaluate.digit_classifier.max_steps": 10,
    "infer.num_solver_steps": 2,
    "infer.max_new_tokens": 8,
}
NAMED_METRICS = {
    "text_to_image/objects_right",
    "text_to_image/scenes_right",
    "text_to_image/objects_right_kept_out",
    "text_to_image/judge_on_real",
    "image_to_text/objects_right",
    "image_to_text/scenes_right",
    "text/bits_per_byte",
    "text/xz_bits_per_byte",
    "text/ngram_bits_per_byte",
    "image/diffusion_loss",
    "conditioning/wrong_caption_gap",
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With tiny parameters."""
    return fresh_copy(tmp_path_factory.mktemp("fresh") / "repository", SMALL)


def fresh_copy(copy: Path, values: Mapping[str, Any]) -> Path:
    """Everything git would take, with these parameters, its own git history and its own DVC cache."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith("reports/") and name != "dvc.lock":
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
    set_params(copy / "params.yaml", values)
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "fresh"]):
        subprocess.run(["git", *command], cwd=copy, check=True)
    return copy


def _environment() -> dict[str, str]:
    """One process of a kind: the stages' own tests have two of each, and each takes longer to start than its work here."""
    kept = {name: value for name, value in os.environ.items() if name not in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS")}
    kept |= {"TRANSFUSION_NUM_WORKERS": "1", "TRANSFUSION_NUM_ACTORS": "1"}
    return kept | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}


def _repro(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dvc", "repro", *arguments]
    return subprocess.run(command, cwd=repository, env=_environment(), capture_output=True, text=True, check=False)


def _report(repository: Path, name: str) -> Any:
    return json.loads((repository / "reports" / name).read_text())


@pytest.mark.timeout(900)
def test_the_whole_graph_runs(repository: Path) -> None:
    result = _repro(repository)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-3000:]
    metrics = _report(repository, "evaluate/metrics.json")
    assert set(metrics) >= NAMED_METRICS
    assert all(isinstance(value, float) for value in metrics.values())
    parity = (repository / "reports" / "export" / "parity.json").read_text()
    assert "max_abs" in parity
    version = _report(repository, "register/version.json")
    assert "challenger" in version["aliases"] and "champion" not in version["aliases"]
    requests = (repository / "data" / "requests" / "requests.jsonl").read_text().splitlines()
    results = (repository / "artifacts" / "predictions" / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in results] == [json.loads(line)["id"] for line in requests]


def test_the_run_is_in_mlflow(repository: Path) -> None:
    import mlflow

    run_id = json.loads((repository / "artifacts" / "train" / "run.json").read_text())["run_id"]
    store = f"sqlite:///{repository}/mlflow.db"
    client = mlflow.MlflowClient(store, registry_uri=store)
    run = client.get_run(run_id)
    assert {"train/loss_text", "train/loss_image"} <= set(run.data.metrics)
    (evaluation,) = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'")
    assert "text/bits_per_byte" in evaluation.data.metrics and "text/bits_per_byte" not in run.data.metrics
    assert (run.info.end_time or 0) <= evaluation.info.start_time, "later stages leave the training's run as it ended"
    assert run.data.params["train.max_steps"] == "12"
    assert run.inputs is not None and run.inputs.dataset_inputs, "no dataset lineage"
    assert any("samples" in file.path or "images" in file.path for file in client.list_artifacts(run_id))
    version = client.get_model_version_by_alias("transfusion", "challenger")
    assert version.run_id == run_id
    model = client.get_logged_model(str(version.source).rpartition("/")[2])
    assert (model.name, model.source_run_id) == ("transfusion", run_id)
    assert {(metric.dataset_name, metric.run_id) for metric in model.metrics or []} == {
        ("held-out documents", evaluation.info.run_id)
    }


def test_the_summary_prints_every_metric(repository: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "pipelines.summary"],
        cwd=repository,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert all(name in result.stdout for name in NAMED_METRICS)
    assert "artifacts/bundle" in result.stdout and "transfusion version 1" in result.stdout


def test_no_output_says_where_it_was_made(repository: Path) -> None:
    """A path of the checkout would change digests with the folder."""
    written = [path for name in ("data", "artifacts", "reports") for path in (repository / name).rglob("*") if path.is_file()]
    assert len(written) > 40
    assert not [path for path in written if str(repository).encode() in path.read_bytes()]


def test_a_second_run_only_looks_at_the_inputs(repository: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = _repro(repository)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 0, result.stdout + result.stderr
    assert [line for line in result.stdout.splitlines() if line.startswith("Running stage")] == ["Running stage 'inputs':"]
    # Of a processor: what else runs beside the tests costs no test.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10


def test_a_refusing_gate_stops_the_graph_and_loses_nothing(repository: Path) -> None:
    before = (repository / "artifacts" / "train" / "manifest.json").read_bytes()
    floor = YAML().load((repository / "params.yaml").read_text())["validate"]["documents"]["min_documents"]
    set_params(repository / "params.yaml", {"validate.documents.min_documents": 1_000_000})
    try:
        result = _repro(repository)
    finally:
        set_params(repository / "params.yaml", {"validate.documents.min_documents": floor})
    said = result.stdout + result.stderr
    assert result.returncode != 0
    assert "validate-documents: refused:" in said and "is below validate.documents.min_documents 1000000" in said
    assert "Running stage 'autoencoder'" not in said
    assert (repository / "artifacts" / "train" / "manifest.json").read_bytes() == before
    assert _repro(repository).returncode == 0


def test_recipes_are_trained_and_measured_as_the_graph_does_it(repository: Path) -> None:
    def recipes(*arguments: str) -> str:
        command = [
            sys.executable,
            "-m",
            "benchmarks.recipes",
            "--only",
            "flow",
            "--threads",
            "1",
            "--out",
            "found.json",
            *arguments,
        ]
        return subprocess.run(command, cwd=repository, env=_environment(), capture_output=True, text=True, check=True).stdout

    first = recipes("--seeds", "3")
    metrics = json.loads((repository / "found.json").read_text())["recipes"]["flow"]["3"]["metrics"]
    assert set(metrics) == set(_report(repository, "evaluate/metrics.json"))
    assert metrics["text/bits_per_byte"] != _report(repository, "evaluate/metrics.json")["text/bits_per_byte"], "another seed"
    again = recipes("--seeds", "3")
    assert "step" in first and "step" not in again, "what is there already is not trained again"
    assert again.splitlines() == first.splitlines()[-2:], "the table, alone"


@pytest.mark.timeout(900)
def test_a_killed_training_goes_on_from_its_last_checkpoint(repository: Path) -> None:
    """SIGKILL to dvc and to everything it started, once a checkpoint stands; the next repro does not begin at step 0."""
    set_params(
        repository / "params.yaml",
        {"train.max_steps": 4000, "train.checkpoint_every_steps": 10, "train.sample_every_steps": 4000},
    )
    command = [sys.executable, "-m", "dvc", "repro", "train"]
    with (repository / "killed.log").open("w") as log:
        process = subprocess.Popen(command, cwd=repository, env=_environment(), stdout=log, stderr=log, start_new_session=True)
        deadline_s = time.monotonic() + 300
        while not _checkpoint_steps(repository) and time.monotonic() < deadline_s and process.poll() is None:
            time.sleep(0.5)
        _kill_tree(process)
    reached = _checkpoint_steps(repository)
    assert reached, (repository / "killed.log").read_text()[-4000:]
    # Few steps more than were reached end the test soon; the number of steps is part of the run's identity, so keep it.
    with (repository / "resumed.log").open("w") as log:
        process = subprocess.Popen(command, cwd=repository, env=_environment(), stdout=log, stderr=log, start_new_session=True)
        deadline_s = time.monotonic() + 300
        while (
            "resum" not in (repository / "resumed.log").read_text() and time.monotonic() < deadline_s and process.poll() is None
        ):
            time.sleep(0.5)
        _kill_tree(process)
    said = (repository / "resumed.log").read_text()
    assert "resum" in said, said[-4000:]


def _checkpoint_steps(repository: Path) -> list[Path]:
    return sorted((repository / ".work" / "train").rglob("step-*/manifest.json"))


def _kill_tree(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL the process and all that descends from it (Ray's workers have sessions of their own)."""
    import psutil

    if process.poll() is None:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for member in family:
            try:
                member.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
    process.wait()
