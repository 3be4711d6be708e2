"""Does a run end up in the store with everything it was told, and does a store that dies leave the work alone?"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from components.runtime import tracking
from components.runtime.failure import BadInput

PYFUNC = """
import mlflow

class Doubler(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.word = open(context.artifacts["word"]).read()

    def predict(self, context, model_input: list[str], params=None) -> list[str]:
        return [self.word + line for line in model_input]

mlflow.models.set_model(Doubler())
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def client_of(identity: tracking.RunIdentity):
    from mlflow import MlflowClient

    return MlflowClient(identity.tracking_uri)


def test_the_store_is_absolute_and_in_the_working_directory(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracking.tracking_uri() == f"sqlite:///{store}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other/runs.db")
    assert tracking.tracking_uri() == f"sqlite:///{store}/other/runs.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert tracking.tracking_uri() == "http://127.0.0.1:5000"


def test_everything_logged_is_in_the_run(store: Path) -> None:
    identity = tracking.open_run("attempt", tags={"config.digest": "abc"})
    tracker = tracking.Tracker(identity, journal=store / "metrics.jsonl")
    tracker.params({"train": {"max_steps": 5, "model": {"preset": "tiny"}}})
    tracker.params({"train": {"max_steps": 6}})
    for step in range(1, 4):
        tracker.metrics({"train/loss": 1 / step, "perf/tokens_per_s": 10.0}, step)
    tracker.image(np.zeros((8, 8, 3), np.uint8), "samples/00-a-red-three", 3)
    (store / "report.json").write_text("{}")
    tracker.artifact(store / "report.json", "reports")
    tracker.dataset("latents", digest="d" * 64, source=store, context="training")
    tracker.finish()

    run = client_of(identity).get_run(identity.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"train.max_steps": "5", "train.model.preset": "tiny"}
    assert run.data.tags["config.digest"] == "abc"
    history = client_of(identity).get_metric_history(identity.run_id, "train/loss")
    assert [(entry.step, entry.value) for entry in history] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert [json.loads(line)["step"] for line in (store / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3]
    assert run.inputs
    (dataset,) = run.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest, dataset.tags[0].value) == ("latents", "d" * 36, "training")
    assert run.info.artifact_uri and run.info.artifact_uri.startswith((store / "mlartifacts").as_uri())
    assert any("00-a-red-three" in item.path for item in client_of(identity).list_artifacts(identity.run_id, "images"))
    assert [item.path for item in client_of(identity).list_artifacts(identity.run_id, "reports")] == ["reports/report.json"]


def test_a_run_is_reopened_and_an_unknown_one_replaced(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = tracking.open_run("attempt")
    tracking.Tracker(first).finish()
    assert tracking.open_run("attempt", run_id=first.run_id) == first
    assert client_of(first).get_run(first.run_id).info.status == "RUNNING"

    replaced = tracking.open_run("attempt", run_id="0" * 32)
    assert replaced.run_id not in ("0" * 32, first.run_id)
    assert "is not in" in capsys.readouterr().out

    client_of(first).delete_run(first.run_id)
    assert tracking.open_run("attempt", run_id=first.run_id).run_id != first.run_id


def test_a_logged_model_becomes_a_version_with_alias_tags_and_metrics(store: Path) -> None:
    identity = tracking.open_run("attempt")
    tracking.Tracker(identity).metrics({"text_to_image/objects_right": 0.97}, 10)
    (store / "pyfunc.py").write_text(PYFUNC)
    (store / "word.txt").write_text("re")
    uri = tracking.log_model(
        identity,
        python_model=store / "pyfunc.py",
        artifacts={"word": store / "word.txt"},
        signature=None,
        input_example=["call"],
        pip_requirements=["mlflow"],
    )
    assert tracking.version_of(identity.tracking_uri, "transfusion", alias="champion") is None
    client = client_of(identity)
    client.create_registered_model("transfusion")
    made = client.create_model_version("transfusion", uri, run_id=identity.run_id, tags={"gate": "passed"})
    tracking.set_alias(identity.tracking_uri, "transfusion", "champion", str(made.version))
    champion = tracking.version_of(identity.tracking_uri, "transfusion", alias="champion")
    assert champion == tracking.Version(
        "transfusion", "1", identity.run_id, {"gate": "passed"}, {"text_to_image/objects_right": 0.97}
    )


def test_a_missing_store_refuses_a_new_run_and_keeps_an_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(BadInput, match="does not answer"):
        tracking.open_run("attempt")
    assert tracking.open_run("attempt", run_id="kept") == tracking.RunIdentity(uri, "kept")


def test_metrics_outlive_a_server_that_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with server(tmp_path, port):
        identity = tracking.open_run("attempt")
        tracker = tracking.Tracker(identity, journal=tmp_path / "metrics.jsonl")
        tracker.metrics({"loss": 4.0}, 1)
    started_s = time.monotonic()
    for step in range(2, 200):
        tracker.metrics({"loss": 4.0 / step}, step)
    assert time.monotonic() - started_s < 5
    assert capsys.readouterr().err.count("going on without it") == 1
    with server(tmp_path, port):
        tracker.finish()
        history = client_of(identity).get_metric_history(identity.run_id, "loss")
        assert [entry.step for entry in history] == list(range(1, 200))
        assert client_of(identity).get_run(identity.run_id).info.status == "FINISHED"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class server:  # noqa: N801
    """An `mlflow server` on loopback in a process group of its own, killed at the end of the block."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port

    def __enter__(self) -> None:
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--workers",
            "1",
        ]
        command += [
            "--backend-store-uri",
            f"sqlite:///{self.folder}/server.db",
            "--default-artifact-root",
            str(self.folder / "artifacts"),
        ]
        environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        log = (self.folder / "server.log").open("ab")
        self.process = subprocess.Popen(command, start_new_session=True, env=environment, stdout=log, stderr=log)
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=1):
                    return
            except (urllib.error.URLError, OSError):
                assert self.process.poll() is None, (self.folder / "server.log").read_text()
                time.sleep(0.1)
        raise TimeoutError((self.folder / "server.log").read_text())

    def __exit__(self, *_: object) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
