"""What an evaluation's run left in the tracking store, found by its own run or by the training's above it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from components.runtime.store_failures import failures_explained
from components.runtime.tracking_store import client_of, copied, is_known
from core.errors import BadInput
from core.metric_keys import FIGURES

PARENT = "mlflow.parentRunId"


class EvaluationRun(NamedTuple):
    run_id: str
    name: str


def evaluation_run(uri: str, run_id: str) -> EvaluationRun:
    """The run itself where it is an evaluation, or the newest evaluation below it. BadInput where there is none."""
    if is_known(uri, run_id) is False:
        raise BadInput(f"no run {run_id} is in {uri}; MLflow's pages list the runs with their ids")
    client = client_of(uri)
    with failures_explained(uri):
        run = client.get_run(run_id)
        below = f"tags.`{PARENT}` = '{run_id}' and tags.`{FIGURES}` != ''"
        runs = [run] if FIGURES in run.data.tags else client.search_runs([run.info.experiment_id], below, max_results=1)
    if not runs:
        raise BadInput(f"run {run_id} in {uri} is no evaluation, and none is below it; run evaluate, or name another run")
    return EvaluationRun(runs[0].info.run_id, runs[0].info.run_name or "")


def run_artifact(uri: str, run_id: str, path: str) -> AbstractContextManager[Path | None]:
    """A copy, for the block, of a file or a folder of the run's artefacts; None where there is none."""

    client = client_of(uri)

    def place() -> str | None:
        beside = client.list_artifacts(run_id, path.rpartition("/")[0] or None)
        return f"runs:/{run_id}/{path}" if any(each.path == path for each in beside) else None

    return copied(uri, path.rpartition("/")[2], place)
