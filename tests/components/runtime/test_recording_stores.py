"""A run is opened once in the store it belongs to, whatever that store loses, refuses or misses."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from mlflow.entities import Run

from benchmarks.faults.store_server import StoreServer
from components.runtime.delivery import Delivery
from components.runtime.recording import later_run, open_run, recorded, send_pending
from components.runtime.sender import Patience
from components.runtime.tracking import About, RunIdentity, Tracker, pending_folder
from components.runtime.tracking_store import client_of, opened_id
from components.training.transformer.journal import add_to
from components.training.transformer.run import open_training_run
from core.errors import BadInput, GateRefused
from pipelines.sync import sync
from tests.components.runtime.conftest import ROOT, state_of, wait_until

ABOUT = About(name="demo flow", params={"seed": 1}, params_yaml="seed: 1\n", note="Trains **demo flow**.")


@pytest.mark.parametrize("content", ["", "{}", "[]", '"a"', '{"run_id": 3}', "\0"])
def test_a_training_whose_note_of_its_run_is_broken(content: str, store: Path) -> None:
    (store / "run.json").write_text(content)
    with pytest.raises(BadInput, match=r"run.json .*(delete|remove) it"):
        open_training_run(store, about=ABOUT, latents=store, digests={"latents": "a" * 64})


def test_a_run_that_the_store_lost_is_told_its_course_again(store: Path) -> None:
    folder = store / "work"
    folder.mkdir()

    def opened() -> RunIdentity:
        return open_training_run(folder, about=ABOUT, latents=store, digests={"latents": "a" * 64})

    first = opened()
    with recorded(first) as tracker:
        for step in range(1, 6):
            tracker.metrics({"train/loss": 1 / step}, step, once=True)
            add_to(folder / "metrics.jsonl", step, {"train/loss": 1 / step})
    assert opened() == first
    client = client_of(first.tracking_uri)
    client.delete_run(first.run_id)
    second = opened()
    assert second.run_id != first.run_id
    with recorded(second) as tracker:
        tracker.metrics({"train/loss": 1 / 6}, 6, once=True)
    history = client.get_metric_history(second.run_id, "train/loss")
    assert [(entry.step, entry.value) for entry in history] == [(step, 1 / step) for step in range(1, 7)]
    assert client.get_run(second.run_id).data.params == {"seed": "1"}


def test_a_run_that_is_opened_later_is_opened_once(store: Path) -> None:
    """Also where a kill came between the opening and the note of it, so that the first entry is sent again."""
    identity = later_run("an evaluation", tags={"mlflow.parentRunId": "a"}, started_ms=1000)
    assert not (store / "mlartifacts").exists()
    client = client_of(identity.tracking_uri)
    (opening,) = Tracker(identity).outbox.waiting()
    for _ in range(2):
        delivery = Delivery(Path(identity.pending) / "files", identity.tracking_uri, identity.run_id)
        delivery.send([opening.value])
    with recorded(identity) as tracker:
        tracker.metrics({"loss": 2.0}, 1)
        tracker.image(np.zeros((8, 8, 3), np.uint8), "samples/one", 1)
    experiment = client.get_experiment_by_name("transfusion")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status, run.info.start_time) == ("an evaluation", "FINISHED", 1000)
    assert (run.data.metrics, run.data.tags["mlflow.parentRunId"]) == ({"loss": 2.0}, "a")
    assert len(client.list_artifacts(run.info.run_id, "images")) == 2
    assert not pending_folder().exists()
    # Deleted while more is sent to it: that is said, and no other takes its place.
    client.delete_run(run.info.run_id)
    with pytest.raises(BadInput, match=f"mlflow runs restore --run-id {run.info.run_id}"):
        Delivery(store, identity.tracking_uri, identity.run_id).send(
            [{"kind": "metrics", "step": 2, "time_ms": 3, "values": {"x": 1.0}}]
        )


def test_the_end_of_a_run_that_was_opened_later_stays_where_it_went_past_the_disk(store: Path) -> None:
    identity = later_run("an evaluation")
    outbox = Tracker(identity).outbox
    for kind, fields in (("opening", outbox.waiting()[0].value), ("status", {"status": "FINISHED", "time_ms": 1})):
        Delivery(outbox.files, identity.tracking_uri, identity.run_id).send([{**fields, "kind": kind}])
    outbox.mark_delivered(outbox.waiting()[0])
    assert send_pending(pending_folder(), print) == (0, 0)
    run_id = opened_id(client_of(identity.tracking_uri), identity.tracking_uri, identity.run_id)
    assert state_of(identity._replace(run_id=run_id)) == ("FINISHED", [])
    assert not pending_folder().exists()


def test_a_run_that_the_store_refuses_to_open_is_set_aside_whole(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    identity = later_run("an evaluation", tags={"mlflow.runName": "another name"})
    with recorded(identity) as tracker:
        tracker.metrics({"loss": 1.0}, 1)
        tracker.text("a report", "report.txt")
    kept = [json.loads(line)["kind"] for line in (Path(identity.pending) / "refused.jsonl").read_text().splitlines()]
    assert sorted(kept) == ["artifact", "metrics", "opening", "status", "status"]
    assert len(list(Path(identity.pending).rglob("report.txt"))) == 1
    assert "refused to open run" in capfd.readouterr().err
    assert send_pending(pending_folder(), print) == (0, 0), "nothing waits behind it"


def test_no_secret_of_a_corpus_reaches_the_store(store: Path) -> None:
    address = "https://me:s3cret@host/a.tar?X-Amz-Signature=abc123"
    about = ABOUT._replace(params={"path": address}, params_yaml=f"[{{path: '{address}', kind: tar}}]\n", note=f"of {address}.")
    with recorded(open_training_run(store, about=about, latents=Path("latents"), digests={"latents": "b"})):
        pass
    with recorded(later_run("an evaluation", tags={"mlflow.note.content": about.note})) as tracker:
        tracker.text(about.params_yaml, "params.yaml")
    kept = [path.read_bytes() for path in store.rglob("*") if path.is_file()]
    assert not [data for data in kept if b"s3cret" in data or b"abc123" in data]
    whole = "[{path: 'https://host/a.tar?X-Amz-Signature=***', kind: tar}]\n"
    assert [path.read_text() for path in (store / "mlartifacts").rglob("params.yaml")] == [whole] * 2


def test_experiments_in_copies_that_dvc_deletes_are_kept(store: Path) -> None:
    (store / "stage.py").write_text(
        "from components.runtime.recording import open_run, recorded\n"
        "with recorded(open_run('attempt')) as tracker:\n"
        "    tracker.metrics({'loss': 1.0}, 1)\n"
        "    open('out.txt', 'w').write(tracker.run_id)\n"
    )
    (store / "dvc.yaml").write_text(
        f"stages:\n  show:\n    cmd: {sys.executable} stage.py\n    params: [a]\n    outs: [out.txt]\n"
    )
    (store / "params.yaml").write_text("a: 1\n")
    (store / ".gitignore").write_text("/mlflow.db\n/mlartifacts/\n/out.txt\n")
    # A queue's worker is started as `dvc`, which an active environment finds.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1", "PATH": path}

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=store, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("git", "init", "-q", ".")
    run(sys.executable, "-m", "dvc", "init", "-q")
    run("git", "add", "-A")
    run("git", "-c", "user.email=a@example.org", "-c", "user.name=a", "commit", "-qm", "a project")
    run(sys.executable, "-m", "dvc", "exp", "run", "--temp", "-S", "a=2")
    run(sys.executable, "-m", "dvc", "exp", "run", "--queue", "-S", "a=3")
    run(sys.executable, "-m", "dvc", "queue", "start")
    client = client_of(f"sqlite:///{store}/mlflow.db")
    experiment = client.get_experiment_by_name("transfusion")
    assert experiment is not None
    assert experiment.artifact_location == (store / "mlartifacts").as_uri()

    def ended() -> list[Run]:
        return client.search_runs([experiment.experiment_id], "attributes.status = 'FINISHED'")

    # The store is asked, and the queue at the end alone: each question to DVC is a process of a second.
    wait_until(lambda: len(ended()) == 2, timeout_s=240)
    wait_until(lambda: "Success" in run(sys.executable, "-m", "dvc", "queue", "status"), timeout_s=60)
    runs = client.search_runs([experiment.experiment_id])
    assert len({found.data.tags["dvc.exp_name"] for found in runs}) == 2
    assert [(found.info.status, found.data.metrics) for found in runs] == [("FINISHED", {"loss": 1.0})] * 2


def test_a_server_that_dies_is_stopped_and_comes_back(
    store: Path, empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr("components.runtime.recording.PATIENT", Patience(1.0, 60.0))
    for name in ("LOOK_EVERY_S", "RETRY_AFTER_S", "MAX_RETRY_AFTER_S"):
        monkeypatch.setattr(f"components.runtime.sender.{name}", 0.2)
    picture, blocked_s = np.zeros((8, 8, 3), np.uint8), 0.0
    (tmp_path / "server").mkdir()
    shutil.copyfile(empty_database, tmp_path / "server/server.db")
    with StoreServer(tmp_path / "server") as server:
        # The server asks for none; where it is kept is what matters here.
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri.replace("//", "//anna:hunter2@"))
        identity = open_run("attempt")

        def record(steps: range) -> float:
            longest_s = 0.0
            for step in steps:
                started_s = time.monotonic()
                tracker.metrics({"loss": 1 / step}, step, once=True)
                if step % 10 == 0:
                    tracker.image(picture, "samples/one", step, once=True)
                longest_s = max(longest_s, time.monotonic() - started_s)
            return longest_s

        with recorded(identity) as tracker:
            tracker.params({"password": "postgresql://anna:hunter2@host/db"})
            record(range(1, 20))
            wait_until(lambda: state_of(identity, server.database)[1] == list(range(1, 20)))
            server.stop()
            blocked_s = record(range(20, 200))
            wait_until(lambda: "does not answer in time" in said(capfd))
            server.wake()
            wait_until(lambda: state_of(identity, server.database)[1] == list(range(1, 200)))
            record(range(200, 230))
            server.kill()
            record(range(230, 300))
        assert blocked_s < 1.5, "less than the time after which a call to the server is given up"
        text = said(capfd)
        assert "have not reached" in text and str(pending_folder() / identity.run_id) in text and "pipelines.sync" in text
        # Of a run that is opened later not even the opening needs the server.
        with recorded(later_run("an evaluation")) as tracker:
            tracker.metrics({"loss": 1.0}, 0)
        with pytest.raises(GateRefused, match="2 runs still wait"):
            sync("")
        server.start()
        command = [sys.executable, "-m", "pipelines.sync"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert state_of(identity, server.database) == ("FINISHED", list(range(1, 300)))
        with closing(sqlite3.connect(server.database, timeout=60)) as connection:
            others = connection.execute("SELECT run_uuid FROM runs WHERE name = 'an evaluation'").fetchall()
        assert [state_of(identity._replace(run_id=other), server.database) for (other,) in others] == [("FINISHED", [0])]
        pictures = (server.folder / "artifacts").rglob("*.png")
        assert sorted(int(path.name.split("+")[2]) for path in pictures) == list(range(10, 300, 10))
        assert not pending_folder().exists()
    text += done.stderr + done.stdout + said(capfd) + json.dumps(identity)
    assert "hunter2" not in text
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"hunter2" not in path.read_bytes(), path


_SAID: list[str] = []


def said(capfd: pytest.CaptureFixture[str]) -> str:
    """Everything that was printed so far."""
    _SAID.append("".join(capfd.readouterr()))
    return "".join(_SAID)
