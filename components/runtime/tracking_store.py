"""The way into the tracking store: which one it is, a client of it, and its experiment.

MLFLOW_TRACKING_URI names the store; without it that is `mlflow.db`, with artefacts in `mlartifacts/`, in the project's folder.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from components.runtime.credentials import with_credentials, without_secrets
from components.runtime.relocation import relocate
from components.runtime.store_address import check_address, check_variables
from components.runtime.store_failures import NO_MLFLOW, failures_explained, is_missing
from core.errors import BadInput

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import RunInfo

EXPERIMENT = "transfusion"
EXPERIMENT_TAGS = {
    # MLflow's pages then show trainings, and not conversations with language models.
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": "Each run trained a model, and below it are its evaluations; docs/tracking.md says what is where.",
}
SQLITE = "sqlite:///"
# How the id of a run begins that the store opens, under an id of its own, with the first delivery.
LATER = "later-"
# By which such a run is found. MLflow's pages leave out tags that begin so.
OPENED_AS = "mlflow.openedAs"


def project_folder() -> Path:
    """The working directory, or the project that DVC copied it from for an experiment: DVC deletes the copy at the end."""
    here = Path.cwd()
    parts = here.parts
    for at in range(len(parts) - 3):
        if parts[at : at + 3] == (".dvc", "tmp", "exps"):
            original, copy = Path(*parts[:at]), next((path for path in (here, *here.parents) if (path / ".git").exists()), here)
            # A DVC project may be a folder inside its Git repository; the copy is of the whole repository.
            repository = next((path for path in (original, *original.parents) if (path / ".git").exists()), original)
            return repository / here.relative_to(copy) if len(copy.parts) > at else original
    return here


def tracking_uri() -> str:
    """The store of this process's project or environment, absolute and without secrets (`with_credentials` adds them).

    BadInput where the environment names what MLflow keeps no runs in.
    """
    return absolute_uri(os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}mlflow.db")


def absolute_uri(uri: str) -> str:
    """A relative path to a database is relative to the project's folder. BadInput for what can be no store."""
    check_address(uri)
    path = uri.removeprefix(SQLITE)
    if uri.startswith(SQLITE) and path and not path.startswith(("/", ":", "file:")):
        return f"{SQLITE}{project_folder() / path}"
    return without_secrets(uri)


def portable_uri(uri: str) -> str:
    """The opposite of `absolute_uri`, for what is kept in the project: a project that is moved finds its store again."""
    return uri.replace(f"{SQLITE}{project_folder()}/", SQLITE, 1)


def client_of(uri: str) -> MlflowClient:
    """A client, its secrets taken from the environment. BadInput for a store that cannot be used as it stands."""
    _set_environment()
    check_variables()
    check_database(uri)
    from mlflow import MlflowClient
    from mlflow.store.db import utils

    utils.MAX_RETRY_COUNT = 3  # of connecting to a database; its ten take 100 s
    full = with_credentials(uri)
    with failures_explained(uri):
        return MlflowClient(tracking_uri=full, registry_uri=full)


def fluent(uri: str) -> Any:
    """The mlflow module, pointed at `uri`; for the two calls that the client does not have."""
    _set_environment()
    import mlflow

    # MLflow writes the address, secrets included, into the environment, where it would pass for the user's.
    before = {name: os.environ.get(name) for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")}
    mlflow.set_tracking_uri(with_credentials(uri))
    mlflow.set_registry_uri(with_credentials(uri))
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    return mlflow


@contextmanager
def copied(uri: str, name: str, place: Callable[[], str | None]) -> Iterator[Path | None]:
    """A copy, for the block, of a file or folder `name` among the store's artefacts; None where there is none.

    place: gives its address, which ends in `name`, or None.
    """
    with tempfile.TemporaryDirectory(prefix="transfusion-") as copy:
        with failures_explained(uri):
            if source := place():
                fluent(uri).artifacts.download_artifacts(source, dst_path=copy, tracking_uri=with_credentials(uri))
        yield Path(copy) / name if source else None


def experiment_id(client: MlflowClient, uri: str) -> str:
    """The experiment's, made where there is none."""
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        # Without a location of its own the experiment's artefacts would follow whatever folder a process happens to run in.
        database = database_of(uri)
        beside = database.with_name("mlartifacts").as_uri() if database else None
        return client.create_experiment(EXPERIMENT, artifact_location=beside, tags=EXPERIMENT_TAGS)
    if found.lifecycle_stage != "active":
        if not found.experiment_id:
            raise BadInput(f"the tracking store {uri} {NO_MLFLOW}")
        raise BadInput(
            f"the experiment {EXPERIMENT} was deleted in the tracking store {uri}; bring it back with "
            f"`MLFLOW_TRACKING_URI={uri} mlflow experiments restore --experiment-id {found.experiment_id}`, "
            "or name another store"
        )
    for key in EXPERIMENT_TAGS.keys() - found.tags.keys():  # of a store from before they were set
        client.set_experiment_tag(found.experiment_id, key, EXPERIMENT_TAGS[key])
    return found.experiment_id


def opened_id(client: MlflowClient, uri: str, run_id: str) -> str:
    """The store's id of a run that is opened with the first delivery, if it is, else `run_id`. A deleted run is found too."""
    from mlflow.entities import ViewType

    wanted = f"tags.`{OPENED_AS}` = '{run_id}'"
    found = client.search_runs([experiment_id(client, uri)], wanted, ViewType.ALL, max_results=1)
    return found[0].info.run_id if found else run_id


def is_known(uri: str, run_id: str) -> bool | None:
    """Whether the store has the run; None when the store does not answer, which is no reason to give a run up."""
    info = _info(uri, run_id)
    return info if info is None or isinstance(info, bool) else info.lifecycle_stage == "active"


def has_ended(uri: str, run_id: str) -> bool:
    """Whether the store has the run's end; not where it does not answer."""
    return getattr(_info(uri, run_id), "status", "") in ("FINISHED", "FAILED", "KILLED")


def _info(uri: str, run_id: str) -> RunInfo | Literal[False] | None:
    """What the store says of the run; False where it has none, None where it does not answer as a store does."""
    from mlflow.exceptions import MlflowException

    try:
        client = client_of(uri)
        with failures_explained(uri):
            try:
                known = opened_id(client, uri, run_id) if run_id.startswith(LATER) else run_id
                info = client.get_run(known).info
            except MlflowException as error:
                if is_missing(error):
                    return False
                raise
    except BadInput:
        return None
    return info if info.run_id == known else None


def database_of(uri: str) -> Path | None:
    """The file of an SQLite store."""
    path = uri.removeprefix(SQLITE).partition("?")[0]
    return Path(path) if uri.startswith(SQLITE) and path.startswith("/") else None


def check_database(uri: str) -> None:
    """Refuse at once what MLflow would try again and again, or not say in a sentence; put a moved store right."""
    database = database_of(uri)
    if database is None:
        return
    try:
        if database.is_dir():
            raise BadInput(f"the tracking store {uri} is a folder, not a database; name a file in it")
        database.parent.mkdir(parents=True, exist_ok=True)
        present = [path for path in (database, database.parent) if path.exists()]
    except OSError as error:
        why = f"{error.strerror}: {error.filename}"
        raise BadInput(f"the tracking store {uri} cannot be made or read ({why}); name another place") from None
    for path in present:
        if not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
            raise BadInput(f"the tracking store {uri} cannot be written ({path}); make it writable for this user")
    if said := relocate(database):
        print(f"tracking: {said}", flush=True)


def _set_environment() -> None:
    """What MLflow reads: no telemetry, no minutes of retries, no addresses and no tracebacks in our output."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    for name in ("alembic", "mlflow.tracking.fluent"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("mlflow.store.db.utils", "urllib3.connectionpool"):  # what they report is raised as well
        logging.getLogger(name).setLevel(logging.CRITICAL)
