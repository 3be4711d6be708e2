"""Where is a run written down? The one home of MLflow: runs, metrics, pictures, lineage, and the model registry.

MLFLOW_TRACKING_URI names the store; without it that is `mlflow.db` with artefacts in `mlartifacts/`, both in the
working directory. One run per trained model: `train` opens it and later stages reopen it by its id.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from components.runtime.failure import BadInput

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient

EXPERIMENT = "transfusion"
# A server that does not answer is tried again after this long, and never in between.
RETRY_AFTER_S = 30.0


class RunIdentity(NamedTuple):
    """What another process needs to log into the same run. tracking_uri is absolute."""

    tracking_uri: str
    run_id: str


class Version(NamedTuple):
    """A registered model version. metrics: those of its run, the last value of each."""

    name: str
    version: str
    run_id: str
    tags: dict[str, str]
    metrics: dict[str, float]


def tracking_uri() -> str:
    """The store of this process's working directory or environment, with every relative path made absolute."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    scheme, path = uri[: len("sqlite:///")], uri[len("sqlite:///") :]
    if scheme == "sqlite:///" and not path.startswith("/"):
        return scheme + str(Path(path).absolute())
    return uri


def open_run(name: str, *, run_id: str = "", tags: Mapping[str, str] | None = None, uri: str = "") -> RunIdentity:
    """Open a run of the experiment, or reopen `run_id`; one that this store does not know is replaced, aloud.

    Call it in the process the user started: git's state is read here. BadInput when a store for a new run does not
    answer.
    """
    uri = uri or tracking_uri()
    client = _client(uri)
    if run_id:
        known = _is_known(client, run_id)
        if known is not False:
            if known:
                client.update_run(run_id, status="RUNNING")
            return RunIdentity(uri, run_id)
        print(f"tracking: run {run_id} is not in {uri}; a new run is opened", flush=True)
    try:
        run = client.create_run(_experiment(client, uri), run_name=name, tags=git_tags() | dict(tags or {}))
    except Exception as error:
        raise BadInput(
            f"the tracking store {uri} does not answer ({_first_line(error)}); start it, or unset MLFLOW_TRACKING_URI"
        ) from None
    return RunIdentity(uri, run.info.run_id)


class Tracker:
    """Writes into one run from any process. A store that stops answering stops nobody: one warning, then retries.

    journal: a JSONL file that every metric is appended to first; what could not be sent is sent later, none of it
    twice. say: where the warning goes.
    """

    def __init__(self, identity: RunIdentity, *, journal: Path | None = None, say: Callable[[str], None] | None = None) -> None:
        self.run_id = identity.run_id
        self._say = say or _say_on_stderr
        self._uri, self._journal = identity.tracking_uri, journal
        self._client = _client(identity.tracking_uri)
        self._unsent: list[tuple[str, float, int, int]] = []
        self._warned = False
        self._silent_until_s = 0.0

    def params(self, tree: Mapping[str, Any]) -> None:
        """Log a configuration, nested keys joined by dots. MLflow's rule: a parameter keeps its first value."""
        from mlflow.entities import Param

        known = self._try(lambda: self._client.get_run(self.run_id).data.params) or {}
        new = [Param(key, str(value)[:6000]) for key, value in flatten(tree).items() if key not in known]
        for start in range(0, len(new), 100):  # the store's limit
            self._try(lambda part=new[start : start + 100]: self._client.log_batch(self.run_id, params=part))

    def metrics(self, values: Mapping[str, float], step: int, *, send: bool = True) -> None:
        """Log one step's numbers; slashes in the names make sections in the UI. send False: into the journal alone."""
        now_ms = int(time.time() * 1000)
        if self._journal is not None:
            with self._journal.open("a") as file:
                file.write(json.dumps({"step": step, "time_ms": now_ms, **values}) + "\n")
        if send:
            self._unsent += [(name, float(value), now_ms, step) for name, value in values.items()]
            self.send()

    def send(self) -> bool:
        """Send what waits; True when nothing waits any more."""
        from mlflow.entities import Metric

        while self._unsent:
            part = [Metric(*entry) for entry in self._unsent[:1000]]  # the store's limit
            if self._try(lambda part=part: self._client.log_batch(self.run_id, metrics=part) or True) is None:
                return False
            self._unsent = self._unsent[1000:]
        return True

    def image(self, picture: np.ndarray, key: str, step: int) -> None:
        """uint8 [height, width, 3]; the same key at several steps becomes a slider."""
        self._try(lambda: self._client.log_image(self.run_id, picture, key=key, step=step))

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Copy a file, or a folder's files, into the run."""
        log = self._client.log_artifacts if path.is_dir() else self._client.log_artifact
        self._try(lambda: log(self.run_id, str(path), folder))

    def dataset(self, name: str, *, digest: str, source: Path, context: str) -> None:
        """Record what data the run used. context: "training" or "evaluation"."""
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.meta_dataset import MetaDataset
        from mlflow.entities import DatasetInput, InputTag

        # MLflow names a digest of at most 36 characters.
        dataset = MetaDataset(CodeDatasetSource(tags={"path": str(source)}), name=name, digest=digest[:36])
        entry = DatasetInput(dataset._to_mlflow_entity(), [InputTag("mlflow.data.context", context)])
        self._try(lambda: self._client.log_inputs(self.run_id, [entry]))

    def tags(self, tags: Mapping[str, str]) -> None:
        """Set tags; `mlflow.note.content` is the run's description."""
        for key, value in tags.items():
            self._try(lambda key=key, value=value: self._client.set_tag(self.run_id, key, value))

    def finish(self, status: str = "FINISHED") -> None:
        """End the run with what waits sent; says so when the store never came back."""
        self._silent_until_s = 0.0
        if not self.send():
            where = f"; they are in {self._journal}" if self._journal else ""
            self._say(f"tracking: {len(self._unsent)} metric values never reached {self._uri}{where}")
        self._try(lambda: self._client.set_terminated(self.run_id, status))

    def _try(self, call: Callable[[], Any]) -> Any:
        """The call's result, or None where the store failed or failed a moment ago."""
        if time.monotonic() < self._silent_until_s:
            return None
        try:
            return call()
        except Exception as error:
            self._silent_until_s = time.monotonic() + RETRY_AFTER_S
            if not self._warned:
                self._say(f"tracking: {self._uri} fails ({_first_line(error)}); going on without it")
                self._warned = True
            return None


def log_model(
    identity: RunIdentity,
    *,
    python_model: Path,
    artifacts: Mapping[str, Path],
    signature: Any,
    input_example: Any,
    pip_requirements: Sequence[str],
) -> str:
    """Log a models-from-code pyfunc into the run; returns its `models:/m-...` URI. signature None: from type hints."""
    mlflow = _fluent(identity.tracking_uri)
    with mlflow.start_run(run_id=identity.run_id):
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(python_model),
            artifacts={name: str(path.absolute()) for name, path in artifacts.items()},
            signature=signature,
            input_example=input_example,
            pip_requirements=list(pip_requirements),
        )
    return logged.model_uri


def set_alias(uri: str, name: str, alias: str, version: str) -> None:
    """Let `models:/<name>@<alias>` mean this version from now on."""
    _client(uri).set_registered_model_alias(name, alias, version)


def version_of(uri: str, name: str, *, alias: str = "", version: str = "") -> Version | None:
    """The version with an alias or a number, with its run's metrics; None where there is none."""
    from mlflow.exceptions import MlflowException

    client = _client(uri)
    try:
        found = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, version)
    except MlflowException:
        return None
    run_id = found.run_id or ""
    metrics = dict(client.get_run(run_id).data.metrics) if run_id and _is_known(client, run_id) else {}
    return Version(name, str(found.version), run_id, dict(found.tags), metrics)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}; the names that `dvc params` shows."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def git_tags() -> dict[str, str]:
    """The commit, branch and cleanness of the working directory, and DVC's experiment name, where there are any."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    tags = {"mlflow.source.name": " ".join(sys.orig_argv[1:])[:500], "mlflow.source.type": "LOCAL"}
    try:
        commit = git("rev-parse", "HEAD")
    except FileNotFoundError:
        commit = ""
    if commit:
        tags |= {
            "mlflow.source.git.commit": commit,
            "mlflow.source.git.branch": git("rev-parse", "--abbrev-ref", "HEAD"),
        }
        tags["mlflow.source.git.dirty"] = str(bool(git("status", "--porcelain"))).lower()
    dvc = {"dvc.exp_name": os.environ.get("DVC_EXP_NAME"), "dvc.baseline_rev": os.environ.get("DVC_EXP_BASELINE_REV")}
    return tags | {key: value for key, value in dvc.items() if value}


def _client(uri: str) -> MlflowClient:
    _set_environment()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _fluent(uri: str) -> Any:
    """The mlflow module, pointed at `uri`; for the two calls that the client does not have."""
    _set_environment()
    import mlflow

    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    return mlflow


def _set_environment() -> None:
    """What MLflow reads: no telemetry, no minutes of retries, no lines about migrations."""
    import logging

    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    for name in ("alembic", "mlflow.store.db.utils", "mlflow.tracking.fluent"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _experiment(client: MlflowClient, uri: str) -> str:
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return found.experiment_id
    # Without a location of its own the experiment's artefacts would follow whatever folder a process happens to run in.
    beside = Path(uri.removeprefix("sqlite:///")).with_name("mlartifacts") if uri.startswith("sqlite:///") else None
    return client.create_experiment(EXPERIMENT, artifact_location=beside.as_uri() if beside else None)


def _is_known(client: MlflowClient, run_id: str) -> bool | None:
    """Whether the store has the run; None when the store does not answer, which is no reason to give a run up."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id).info.lifecycle_stage == "active"
    except MlflowException as error:
        return False if error.error_code == "RESOURCE_DOES_NOT_EXIST" else None
    except OSError:
        return None


def _say_on_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
