"""A project that was copied or moved keeps its pictures and models in its own folder."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from components.runtime.recording import open_run, recorded
from components.runtime.registry import log_model, version_of
from components.runtime.relocation import relocate
from components.runtime.tracking_store import client_of, fluent

PYFUNC = """
import mlflow

class Doubler(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.word = open(context.artifacts["word"]).read()

    def predict(self, context, model_input, params=None):
        return [self.word + line for line in model_input]

mlflow.models.set_model(Doubler())
"""


@pytest.fixture
def project(store: Path) -> Path:
    """A project with a picture in a run and a version of a model."""
    identity = open_run("attempt")
    with recorded(identity) as tracker:
        tracker.image(np.zeros((8, 8, 3), np.uint8), "samples/one", 1)
    Path("pyfunc.py").write_text(PYFUNC)
    Path("word.txt").write_text("re")
    uri = log_model(
        identity,
        name="doubler: 1.0",
        python_model=store / "pyfunc.py",
        artifacts={"word": store / "word.txt"},
        signature=None,
        input_example=None,
        pip_requirements=["mlflow"],
    )
    client = client_of(identity.tracking_uri)
    client.create_registered_model("doubler")
    client.create_model_version("doubler", uri, run_id=identity.run_id)
    return store


@pytest.mark.parametrize("how", ["copied", "moved"])
def test_the_new_folder_reads_and_writes_its_own(
    project: Path, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "elsewhere" / "the project's new place"
    before = sorted(project.rglob("*"))
    if how == "copied":
        shutil.copytree(project, new)
    else:
        new.parent.mkdir()
        project.rename(new)
    monkeypatch.chdir(new)
    identity = open_run("another")
    assert f"came from {project}" in capsys.readouterr().out
    with recorded(identity) as tracker:
        tracker.image(np.zeros((8, 8, 3), np.uint8), "samples/two", 2)
    assert [path.name.split("+")[0] for path in (new / "mlartifacts").glob(f"{identity.run_id}/**/*.png")] == ["samples~two"]
    assert sorted(project.rglob("*")) == (before if how == "copied" else [])
    with closing(sqlite3.connect(new / "mlflow.db")) as connection:
        assert not [line for line in connection.iterdump() if line.startswith("INSERT") and "100%" in line]
    # What was there before is read from here: the original is not needed.
    shutil.rmtree(project, ignore_errors=True)
    version = version_of(identity.tracking_uri, "doubler", version="1")
    assert version is not None
    client = client_of(identity.tracking_uri)
    assert len(client.list_artifacts(version.run_id, "images")) == 2
    model = fluent(identity.tracking_uri).pyfunc.load_model("models:/doubler/1")
    assert model.predict(["call"]) == ["recall"]
    capsys.readouterr()
    open_run("a third")
    assert "came from" not in capsys.readouterr().out


def test_a_place_that_was_chosen_stays(store: Path, tmp_path: Path) -> None:
    chosen = tmp_path / "store" / "mlartifacts"
    chosen.mkdir(parents=True)
    client_of(f"sqlite:///{store}/mlflow.db").create_experiment("mine", artifact_location=chosen.as_uri())
    client_of(f"sqlite:///{store}/mlflow.db").create_experiment("far", artifact_location="s3://bucket/mlartifacts")
    assert relocate(store / "mlflow.db") == ""


def test_no_database_yet_is_none_of_its_business(tmp_path: Path) -> None:
    assert relocate(tmp_path / "mlflow.db") == ""
    (tmp_path / "mlflow.db").touch()
    assert relocate(tmp_path / "mlflow.db") == ""
