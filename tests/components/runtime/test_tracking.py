"""What a run was told is in its store, and nothing of what was told waits for the store."""

from __future__ import annotations

import getpass
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import numpy as np
import pytest

from components.runtime import tracking
from components.runtime.recording import open_run, recorded
from components.runtime.registry import Version, set_alias, version_of
from components.runtime.sender import Patience
from components.runtime.tracking_store import client_of, project_folder, tracking_uri
from core.errors import BadInput
from tests.components.runtime.conftest import wait_until


def test_the_store_is_absolute_and_in_the_working_directory(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracking_uri() == f"sqlite:///{store}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other/runs.db")
    assert tracking_uri() == f"sqlite:///{store}/other/runs.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert tracking_uri() == "http://127.0.0.1:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://anna:hunter2@127.0.0.1:5000")
    assert tracking_uri() == "http://127.0.0.1:5000"


@pytest.mark.parametrize("below", ["", "project"])
def test_a_copy_that_dvc_made_for_an_experiment_uses_the_original_store(
    store: Path, below: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store / ".git").mkdir()
    copy = store / below / ".dvc/tmp/exps/standalone/tmpx"
    (copy / below / "deep").mkdir(parents=True)
    (copy / ".git").mkdir()
    monkeypatch.chdir(copy / below)
    assert project_folder() == store / below
    assert tracking_uri() == f"sqlite:///{store / below}/mlflow.db"
    assert tracking.pending_folder() == store / below / "mlpending"
    monkeypatch.chdir(copy / below / "deep")
    assert project_folder() == store / below / "deep"
    monkeypatch.chdir(store)
    assert project_folder() == store


def test_everything_logged_is_in_the_run(store: Path) -> None:
    identity = open_run("attempt", tags={"config.digest": "abc"})
    (store / "report.json").write_text("{}")
    with recorded(identity) as tracker:
        tracker.params({"train": {"max_steps": 5, "model": {"preset": "tiny"}}})
        tracker.params({"train": {"max_steps": 6}})
        for step in range(1, 4):
            tracker.metrics({"train/loss": 1 / step, "perf/tokens_per_s": 10.0}, step)
        tracker.image(np.zeros((8, 8, 3), np.uint8), "samples/00-a-red-three", 3)
        tracker.artifact(store / "report.json", "reports")
        (store / "report.json").write_text("what it became later")
        tracker.text("a: 1\n", "params.yaml")
        tracker.tables({"figures.json": (("figure", "value"), [("right", 0.5), ("wrong", None)])})
        tracker.dataset("latents", digest="d" * 64, source=store, context="training")
        tracker.tags({"mlflow.note.content": "a note"})

    client = client_of(identity.tracking_uri)
    run = client.get_run(identity.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"train.max_steps": "5", "train.model.preset": "tiny"}
    assert (run.data.tags["config.digest"], run.data.tags["mlflow.note.content"]) == ("abc", "a note")
    history = client.get_metric_history(identity.run_id, "train/loss")
    assert [(entry.step, entry.value) for entry in history] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert run.inputs
    (dataset,) = run.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest, dataset.tags[0].value) == ("latents", "d" * 12, "training")
    assert run.info.artifact_uri and run.info.artifact_uri.startswith((store / "mlartifacts").as_uri())
    assert [item.path for item in client.list_artifacts(identity.run_id, "reports")] == ["reports/report.json"]
    assert Path(client.download_artifacts(identity.run_id, "reports/report.json")).read_text() == "{}"
    assert Path(client.download_artifacts(identity.run_id, "params.yaml")).read_text() == "a: 1\n"
    assert run.data.tags["mlflow.user"] == getpass.getuser()
    # MLflow looks a table's runs up in the process's own store, whichever client asks.
    with store_of_the_process(identity.tracking_uri):
        table = client.load_table(run.info.experiment_id, "figures.json", [identity.run_id])
    assert table["figure"].tolist() == ["right", "wrong"] and table["value"].isna().tolist() == [False, True]
    experiment = client.get_experiment(run.info.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert not (store / "mlpending").exists()


@contextmanager
def store_of_the_process(uri: str) -> Iterator[None]:
    """Until the end of the block."""
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)


def test_pictures_have_the_names_that_mlflow_gives_them(store: Path) -> None:
    identity = open_run("attempt")
    picture = np.arange(8 * 6 * 3, dtype=np.uint8).reshape(8, 6, 3)
    with recorded(identity) as tracker:
        tracker.image(picture, "samples/00-a red.three", 3)
    client = client_of(identity.tracking_uri)
    ours = [item.path for item in client.list_artifacts(identity.run_id, "images")]
    client.log_image(identity.run_id, picture, key="samples/00-a red.three", step=3)
    theirs = sorted({item.path for item in client.list_artifacts(identity.run_id, "images")} - set(ours))

    def form(name: str) -> list[str]:
        """Without the time, and the name that no two pictures share."""
        parts = name.split("+")
        assert parts[4].isdecimal()
        return [*parts[:4], parts[5][len(parts[5].partition(".")[0]) :], *parts[6:]]

    assert sorted(map(form, ours)) == sorted(map(form, theirs))
    whole = next(name for name in ours if name.endswith(".png"))
    from PIL import Image

    with Image.open(client.download_artifacts(identity.run_id, whole)) as image:
        assert np.array_equal(np.asarray(image), picture)
    # A card of MLflow's charts shows the top of a square of its own width, and enlarges nothing.
    with Image.open(client.download_artifacts(identity.run_id, next(name for name in ours if name.endswith(".webp")))) as image:
        shown = np.asarray(image.convert("RGB")).astype(int)
    assert shown.shape == (1024, 1024, 3)
    assert np.abs(shown[64:1024:128, 64:768:128] - picture).max() < 40 and shown[:, 800:].min() > 240


def test_a_step_that_is_taken_again_counts_once_and_an_evaluation_again_twice(store: Path) -> None:
    identity = open_run("attempt")
    picture = np.zeros((8, 8, 3), np.uint8)
    for start in (1, 3):
        # Two processes, the first killed after step 5; the second goes on from step 2.
        with recorded(identity) as tracker:
            for step in range(start, start + 5):
                tracker.metrics({"train/loss": 1 / step}, step, once=True)
                tracker.image(picture, "samples/one", step, once=True)
            tracker.metrics({"quality": start}, 9, time_ms=1000 + start)
    client = client_of(identity.tracking_uri)
    history = client.get_metric_history(identity.run_id, "train/loss")
    assert sorted((entry.step, entry.value) for entry in history) == [(step, 1 / step) for step in range(1, 8)]
    assert [entry.value for entry in client.get_metric_history(identity.run_id, "quality")] == [1, 3]
    names = [item.path for item in client.list_artifacts(identity.run_id, "images") if item.path.endswith(".png")]
    assert sorted(int(name.split("+")[2]) for name in names) == list(range(1, 8))


def test_numbers_that_are_none_and_entries_that_are_refused_stop_nothing(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    identity = open_run("attempt")
    with recorded(identity) as tracker:
        tracker.metrics({"train/loss": math.nan}, 1, once=True)
        tracker.metrics({"train/loss": math.inf}, 2, once=True)
        tracker.metrics({"a name? with; signs": 1.0}, 2, once=True)
        tracker.metrics({"train/loss": 3.0}, 3, once=True)
    client = client_of(identity.tracking_uri)
    history = client.get_metric_history(identity.run_id, "train/loss")
    assert [entry.step for entry in history] == [1, 2, 3]
    assert math.isnan(history[0].value)
    assert client.get_run(identity.run_id).info.status == "FINISHED"
    assert "refused an entry" in capsys.readouterr().err
    (kept,) = (store / "mlpending" / identity.run_id).glob("refused.jsonl")
    assert json.loads(kept.read_text())["values"] == {"a name? with; signs": 1.0}


def test_a_run_is_reopened_and_an_unknown_one_replaced(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = open_run("attempt")
    client = client_of(first.tracking_uri)
    with recorded(first):
        pass
    assert open_run("attempt", run_id=first.run_id) == first
    with recorded(first) as tracker:
        tracker.metrics({"x": 1.0}, 1)
        wait_until(lambda: client.get_run(first.run_id).info.status == "RUNNING")
    assert client.get_run(first.run_id).info.status == "FINISHED"

    replaced = open_run("attempt", run_id="0" * 32)
    assert replaced.run_id not in ("0" * 32, first.run_id)
    assert "is not in" in capsys.readouterr().out

    client.delete_run(first.run_id)
    assert open_run("attempt", run_id=first.run_id).run_id != first.run_id


def test_a_run_that_is_deleted_while_it_goes_on_says_how_to_bring_it_back(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.runtime.recording.PATIENT", Patience(0.5, 60.0))
    identity = open_run("attempt")
    client = client_of(identity.tracking_uri)
    client.delete_run(identity.run_id)
    with recorded(identity) as tracker:
        tracker.metrics({"x": 1.0}, 1)
    assert f"mlflow runs restore --run-id {identity.run_id}" in capsys.readouterr().err
    assert (store / "mlpending" / identity.run_id).exists()


def test_what_is_kept_in_files_holds_no_secret_and_no_folder(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_run("attempt").facts()["tracking_uri"] == "sqlite:///mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://anna:hunter2@host:5000/path?token=hunter2")
    identity = tracking.identity_of("a")
    assert "hunter2" not in repr(identity)
    assert identity.facts() == {"tracking_uri": "http://host:5000/path?token=***", "run_id": "a"}


def test_a_full_disk_is_said_once_and_its_numbers_come_with_the_next(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    identity = open_run("attempt")
    tracker = tracking.Tracker(identity)
    tracker.metrics({"x": 1.0}, 1)
    file = tracker.outbox._file
    # The kernel's own file that is always full.
    tracker.outbox._file = Path("/dev/full").open("ab", buffering=0)  # noqa: SIM115
    tracker.metrics({"x": 2.0}, 2)
    tracker.metrics({"x": 3.0}, 3)
    assert [entry.value["step"] for entry in tracker.outbox.waiting()] == [1]
    assert capsys.readouterr().err.count("cannot be written") == 1
    tracker.outbox._file.close()
    tracker.outbox._file = file
    tracker.metrics({"x": 4.0}, 4)
    assert [entry.value["step"] for entry in tracker.outbox.waiting()] == [1, 2, 3, 4]


def test_a_version_from_before_has_its_metrics_in_tags_of_its_own(store: Path) -> None:
    identity = open_run("attempt")
    with recorded(identity):
        pass
    uri = identity.tracking_uri
    assert version_of(uri, "transfusion", alias="champion") is None
    client = client_of(uri)
    client.create_registered_model("transfusion")
    assert version_of(uri, "transfusion", alias="champion") is None
    tags = {"gate": "passed", "metric/text_to_image/objects_right": "0.97"}
    made = client.create_model_version("transfusion", (store / "model").as_uri(), run_id=identity.run_id, tags=tags)
    set_alias(uri, "transfusion", "champion", str(made.version))
    wanted = Version("transfusion", "1", identity.run_id, tags, {"text_to_image/objects_right": 0.97})
    assert version_of(uri, "transfusion", alias="champion") == wanted
    client.delete_run(identity.run_id)
    assert version_of(uri, "transfusion", alias="champion") == wanted, "a version outlives its run"
    with pytest.raises(BadInput, match="version=7"):
        set_alias(uri, "transfusion", "champion", "7")
    assert "MLFLOW_TRACKING_URI" not in os.environ
