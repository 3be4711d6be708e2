"""A cluster for the tests of a file, and a project's folder with an empty tracking store."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from components.runtime import cluster
from components.runtime.tracking import RunIdentity

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def ray_up() -> Iterator[None]:
    with cluster.start_ray():
        yield


@pytest.fixture
def store(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the store that is the default there."""
    project = tmp_path / "my 100%_project"  # what a path may hold, and a pattern or an address would stumble on
    project.mkdir()
    shutil.copyfile(empty_database, project / "mlflow.db")
    monkeypatch.chdir(project)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(name, raising=False)
    return project


def wait_until(condition: Callable[[], bool], timeout_s: float = 120.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "timed out"
        time.sleep(0.05)


def state_of(identity: RunIdentity, database: Path | None = None) -> tuple[str, list[int]]:
    """The run's status, and the steps of its points, as the database has them."""
    database = database or Path(identity.tracking_uri.removeprefix("sqlite:///"))
    with closing(sqlite3.connect(database, timeout=60)) as connection:
        ((status,),) = connection.execute("SELECT status FROM runs WHERE run_uuid = ?", (identity.run_id,)).fetchall()
        points = "SELECT step FROM metrics WHERE run_uuid = ? AND key = 'loss' ORDER BY step"
        return status, [step for (step,) in connection.execute(points, (identity.run_id,))]
