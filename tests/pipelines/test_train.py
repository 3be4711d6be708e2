"""The train stage, started as a user starts it, ends with a model, whatever is killed on the way, and refuses in a sentence."""

from __future__ import annotations

import csv
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from components.data.quarantine import validation_facts
from components.training.checkpoint_folders import checkpoints
from components.training.run_folder import RunFolder
from components.training.transformer.pretrained_files import pretrained_digest
from core.files import write_json
from core.manifest import read_manifest
from model.transfusion import Transfusion
from tests.components.training.conftest import Corpus, corpus, write_start
from tests.pipelines.stage_process import REPOSITORY, finish, kill_when, start, wait_until

__all__ = ["corpus"]  # the fixture

# Enough to be killed four times on the way, each time after a checkpoint more.
MAX_STEPS = 200
SETTINGS = [
    "train.model.preset=tiny",
    "train.model.patch_side=2",
    "train.batch_rows=4",
    f"train.max_steps={MAX_STEPS}",
    "train.warmup_steps=5",
    "train.checkpoint_every_steps=10",
    "train.sample_every_steps=30",
    "train.log_every_steps=5",
    "train.validate_every_steps=20",
    "train.sampling={prompts: [a red three, a blue seven], guidance_scale: 2.0, num_steps: 2}",
]


@pytest.fixture
def workspace(corpus: Corpus, empty_database: Path, tmp_path: Path) -> Iterator[Path]:
    """A folder as the stages before training leave it, with unfinished work on another disk than results."""
    shutil.copytree(corpus.latents, tmp_path / "data/latents")
    shutil.copytree(corpus.tokenizer, tmp_path / "data/tokenizer")
    shutil.copytree(corpus.autoencoder, tmp_path / "artifacts/autoencoder")
    (tmp_path / "data/quarantine").mkdir()
    quarantine = tmp_path / "data/quarantine/latents.jsonl"
    quarantine.touch()
    write_json(tmp_path / "reports/validate/latents.json", validation_facts("latents", quarantine, {}))
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    shutil.copy(empty_database, tmp_path)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other_disk:
        assert Path(other_disk).stat().st_dev != tmp_path.stat().st_dev
        (tmp_path / ".work").symlink_to(other_disk)
        yield tmp_path


def is_worker(process: psutil.Process) -> bool:
    try:
        return "RayTrainWorker" in " ".join(process.cmdline())
    except psutil.Error:  # it ended meanwhile
        return False


def kill_a_worker(process: subprocess.Popen[str], run: RunFolder, num_resumed: int) -> None:
    """SIGKILL to one of the stage's workers, once it has resumed for the n-th time and written another checkpoint."""

    def has_resumed() -> bool:
        return run.lines.exists() and run.lines.read_text().count("resumed from step") == num_resumed

    wait_until(process, has_resumed, timeout_s=400)
    at = run.newest_step()
    wait_until(process, lambda: run.newest_step() > at, timeout_s=400)
    [*_, worker] = filter(is_worker, psutil.Process(process.pid).children(recursive=True))
    worker.kill()
    assert len(checkpoints(run.store)) <= 3  # the third goes once the newest one stands


def run_of(workspace: Path):
    from mlflow import MlflowClient

    identity = json.loads((workspace / "artifacts/train/run.json").read_text())
    assert identity["tracking_uri"] == "sqlite:///mlflow.db", "another folder would make an absolute path wrong"
    client = MlflowClient(f"sqlite:///{workspace}/mlflow.db")
    return client, client.get_run(identity["run_id"])


def test_a_killed_run_goes_on_and_ends_with_all_its_outputs(corpus: Corpus, workspace: Path) -> None:
    write_start(corpus, workspace / "start")
    settings = [*SETTINGS, "train.pretrained=start"]
    process = start("train", workspace, settings, num_workers=1)
    kill_when(process, lambda: any(workspace.glob(".work/train/*/run/step-00000020/manifest.json")), timeout_s=240)
    (folder,) = (path for path in (workspace / ".work/train").iterdir())
    first_run = json.loads((folder / "run.json").read_text())["run_id"]
    assert not (workspace / "artifacts/train").exists()

    (workspace / ".work/train/another").mkdir()
    process = start("train", workspace, settings, num_workers=2)
    for num_resumed in (1, 2, 3):
        kill_a_worker(process, RunFolder(folder=folder), num_resumed)
    output = finish(process)
    assert output.count("all workers start again from step") == 3
    assert output.count("resumed from step") == 4
    assert f"step {MAX_STEPS}/{MAX_STEPS} | eta 0s | " in output
    manifest = read_manifest(workspace / "artifacts/train", kind="train")
    assert manifest["step"] == MAX_STEPS
    began_with = pretrained_digest(workspace / "start")
    assert manifest["pretrained"] == {"name": "start", "sha256": began_with}
    assert set(manifest["ancestors"]) == {"tokenizer", "autoencoder", "latents", "latents verdict"}
    history = (workspace / "reports/train/history.csv").read_bytes()
    assert (workspace / "artifacts/train/history.csv").read_bytes() == history
    model = Transfusion.from_pretrained(workspace / "artifacts/train")
    assert model.config.hidden_size == 32
    with (workspace / "reports/train/history.csv").open() as file:
        rows = list(csv.DictReader(file))
    # The second start takes twice as many workers: the steps and their losses do not depend on it.
    assert [int(row["step"]) for row in rows] == list(range(5, MAX_STEPS + 1, 5))
    with (workspace / "reports/train/validation.csv").open() as file:
        held_out = list(csv.DictReader(file))
    assert [int(row["step"]) for row in held_out if row["loss"]] == list(range(20, MAX_STEPS + 1, 20))
    # The weighted loss lies between the parts it is made of, which compare between training and held-out rows.
    for row in (*rows, *held_out):
        parts = sorted((float(row["text_after_image"]), float(row["text_elsewhere"])))
        assert parts[0] <= float(row["text"]) * 1.0001 and float(row["text"]) <= parts[1] * 1.0001
    metrics = json.loads((workspace / "reports/train/metrics.json").read_text())
    assert metrics["steps"] == MAX_STEPS
    assert metrics["train/loss_text"] < float(rows[0]["text"])
    sheets = sorted((workspace / "reports/train/samples").iterdir())
    assert [path.name for path in sheets] == [f"step-{step:08d}.png" for step in (0, 30, 90, 120, 180, 200)]
    assert (workspace / "reports/train/samples.png").read_bytes() == sheets[-1].read_bytes()
    assert [path.name for path in (workspace / ".work/train").iterdir()] == ["another"], "other settings' work stays"

    client, run = run_of(workspace)
    assert run.info.run_id == first_run
    assert run.info.status == "FINISHED"
    assert run.data.params["train.max_steps"] == str(MAX_STEPS)
    assert run.data.params["train.pretrained_sha256"] == began_with
    assert len(run.data.params) < 12, "all parameters are in an artifact"
    assert run.info.run_name and f", {MAX_STEPS} steps, seed" in run.info.run_name
    assert f"max_steps: {MAX_STEPS}" in Path(client.download_artifacts(first_run, "params.yaml")).read_text()
    assert [entry.step for entry in client.get_metric_history(first_run, "system/cpu_utilization_percentage")] == [
        entry.step for entry in client.get_metric_history(first_run, "system/tokens_per_s")
    ]
    history = client.get_metric_history(first_run, "train/loss")
    assert len({entry.step for entry in history}) == len(history)
    assert run.inputs
    assert [item.dataset.name for item in run.inputs.dataset_inputs] == ["latents"]
    pictures = {item.path for item in client.list_artifacts(first_run, "images")}
    steps = {int(path.split("+")[2]) for path in pictures if "by step" in path}
    assert min(steps) == 0 and max(steps) == MAX_STEPS, "the slider of MLflow's pages begins at step 0"
    assert {int(path.split("+")[2]) for path in pictures if "after training" in path} == {MAX_STEPS}
    assert not (workspace / "mlpending").exists()


def test_a_run_that_fails_has_all_its_points_and_says_so(workspace: Path) -> None:
    from mlflow import MlflowClient

    # The first steps are good; then the rate has warmed up to what no weights bear.
    settings = [*SETTINGS, "train.learning_rate=1.0e+30", "train.warmup_steps=0", "train.log_every_steps=1"]
    process = start("train", workspace, settings, num_workers=1)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 1, output
    assert "is not finite" in output
    (folder,) = (workspace / ".work/train").iterdir()
    run_id = json.loads((folder / "run.json").read_text())["run_id"]
    client = MlflowClient(f"sqlite:///{workspace}/mlflow.db")
    assert client.get_run(run_id).info.status == "FAILED"
    journaled = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert journaled
    assert [entry.step for entry in client.get_metric_history(run_id, "train/loss")] == journaled


def test_a_cluster_that_is_not_there_is_said_before_a_run_is_opened(workspace: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "RAY_ADDRESS": f"127.0.0.1:{nobody.getsockname()[1]}"}
        line = [sys.executable, "-m", "pipelines.train", *(f"--set={setting}" for setting in SETTINGS)]
        ended = subprocess.run(line, cwd=workspace, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert ended.returncode == 1 and "nothing answers" in ended.stderr and ended.stderr.count("\n") == 1, ended.stderr
    assert "train: run" not in ended.stdout
