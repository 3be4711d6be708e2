"""The model registry: one version a bundle, with its metrics, what they were measured on, and its aliases."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from components.runtime.store_failures import failures_explained, is_missing
from components.runtime.tracking import RunIdentity
from components.runtime.tracking_store import client_of, copied, experiment_id, fluent
from core.manifest import MANIFEST

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

# (name, type: an MLflow DataType's name, required)
Column = tuple[str, str, bool]
# On the logged model, so that the rule judges what was measured when a version was registered, whatever is evaluated later.
# What the rule reads stands on the version too, which outlives its logged model; versions from before have all of them there.
METRIC_TAG = "metric/"
BUNDLE_TAG = "bundle_sha256"
LOGGED = "models:/"
VERSIONS_TAG = "mlflow.modelVersions"
# MLflow takes no logged model's name that holds one of these.
NOT_IN_NAMES = "/:.%\"'"
MODEL_DESCRIPTION = (
    "Transfusion models: text and pictures by one transformer. The newest bundle has the alias `challenger`; `champion` is the "
    "best one that kept its bounds. Each version says what it is and how it is asked."
)
MAX_DESCRIPTION_CHARACTERS = 5000
CUT = "\n\nThe rest is in the model card, `README.md` of the bundle."


class Version(NamedTuple):
    """A registered model version. metrics: those it was registered with."""

    name: str
    version: str
    run_id: str
    tags: dict[str, str]
    metrics: dict[str, float]


def find_version(uri: str, name: str, bundle_sha256: str) -> Version | None:
    """The newest version of `name` that is this very bundle. BadInput where the store does not answer."""
    # Compared here: a filter on tags is not offered by every kind of store.
    client = client_of(uri)
    with failures_explained(uri):
        every = client.search_model_versions(f"name = '{name}'")
    matching = [int(entry.version) for entry in every if entry.tags.get(BUNDLE_TAG) == bundle_sha256]
    return version_of(uri, name, version=str(max(matching))) if matching else None


def version_of(uri: str, name: str, *, alias: str = "", version: str = "") -> Version | None:
    """The version with an alias or a number, with the metrics it was registered with; None where there is none."""
    from mlflow.exceptions import MlflowException

    client = client_of(uri)
    with failures_explained(uri):
        try:
            found = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, version)
        except MlflowException as error:
            no_such_alias = alias and error.error_code == "INVALID_PARAMETER_VALUE"
            if not no_such_alias and not is_missing(error):
                raise
            return None
        every_tag = dict(found.tags) | _model_tags(client, _model_id(found.source or ""))
    metrics = {key.removeprefix(METRIC_TAG): float(value) for key, value in every_tag.items() if key.startswith(METRIC_TAG)}
    return Version(name, str(found.version), found.run_id or "", dict(found.tags), metrics)


def set_alias(uri: str, name: str, alias: str, version: str) -> None:
    """Let `models:/<name>@<alias>` mean this version from now on."""
    client = client_of(uri)
    with failures_explained(uri):
        client.set_registered_model_alias(name, alias, version)


def log_model(
    identity: RunIdentity,
    *,
    name: str,
    python_model: Path,
    artifacts: Mapping[str, Path],
    signature: Any,
    input_example: Any,
    pip_requirements: Sequence[str],
    tags: Mapping[str, str] | None = None,
) -> str:
    """Log a models-from-code pyfunc of the run, which stays as it is; returns its `models:/m-...` URI.

    name: of the logged model. signature None: from type hints.
    """
    mlflow = fluent(identity.tracking_uri)
    with failures_explained(identity.tracking_uri):
        # What mlflow.pyfunc.log_model calls, with the run's id: that one has to open the run again, and so lengthens it.
        logged = mlflow.models.Model.log(
            artifact_path=None,
            name="".join("-" if letter in NOT_IN_NAMES else letter for letter in name),
            flavor=mlflow.pyfunc,
            run_id=identity.run_id,
            python_model=str(python_model),
            artifacts={name: str(path.absolute()) for name, path in artifacts.items()},
            signature=signature,
            input_example=input_example,
            pip_requirements=list(pip_requirements),
            tags=dict(tags or {}),
        )
    return logged.model_uri


def create_version(
    identity: RunIdentity,
    name: str,
    *,
    python_model: Path,
    bundle: Path,
    bundle_sha256: str,
    beside: Mapping[str, Path],
    metrics: Mapping[str, float],
    judged: Collection[str],
    tags: Mapping[str, str],
    description: str,
    signature: ModelSignature,
    input_example: Any,
    pip_requirements: Sequence[str],
) -> Version:
    """Log the bundle as a models-from-code pyfunc with its metrics, and make a version of it, its tags set in the same call.

    beside: folders to be kept with the model's files. judged: names of the metrics that stand on the version too.
    description: cut to what the store takes.
    """
    measured = {METRIC_TAG + key: repr(float(value)) for key, value in metrics.items()}
    uri = log_model(
        identity,
        name=name,
        python_model=python_model,
        artifacts={"bundle": bundle},
        signature=signature,
        input_example=input_example,
        pip_requirements=pip_requirements,
        tags=measured,
    )
    client, model_id = client_of(identity.tracking_uri), uri.rpartition("/")[2]
    with failures_explained(identity.tracking_uri):
        # Before there is a version, so that none is without them.
        for folder, path in beside.items():
            _upload(client, model_id, folder, path)
        _ensure_model(client, name)
        made = client.create_model_version(
            name,
            uri,
            run_id=identity.run_id,
            tags={BUNDLE_TAG: bundle_sha256, **tags}
            | {key: value for key, value in measured.items() if key.removeprefix(METRIC_TAG) in judged},
            description=_shortened(description),
            model_id=model_id,
        )
        # As MLflow's own `register_model` does, for the link on the logged model's page.
        client.set_logged_model_tags(model_id, {VERSIONS_TAG: json.dumps([{"name": name, "version": str(made.version)}])})
    found = version_of(identity.tracking_uri, name, version=str(made.version))
    assert found is not None
    return found


def keep_beside(uri: str, version: Version, folder: str, path: Path) -> bool:
    """Keep a folder with the version's files, unless it is there with the same bytes; whether it is there now."""
    client = client_of(uri)
    with kept_beside(uri, version, folder) as there:
        is_kept = there is not None and _bytes_of(there) == _bytes_of(path)
    with failures_explained(uri):
        model_id = _living_model(client, version)
        if model_id and not is_kept:
            _upload(client, model_id, folder, path)
    return bool(model_id)


def kept_beside(uri: str, version: Version, folder: str) -> AbstractContextManager[Path | None]:
    """A copy, for the block, of a folder that is kept with the version's files; None where there is none."""

    client = client_of(uri)

    def place() -> str | None:
        model_id = _living_model(client, version)
        is_there = model_id and client.list_logged_model_artifacts(model_id, folder)
        return f"{client.get_logged_model(model_id).artifact_location}/{folder}" if is_there else None

    return copied(uri, folder, place)


def show_evaluation(uri: str, version: Version, *, tag: str, value: str) -> bool:
    """Give the version's logged model the metrics and data of the newest run with this tag; whether it has any."""
    from mlflow.entities import Metric

    client = client_of(uri)
    with failures_explained(uri):
        model_id = _model_id(client.get_model_version(version.name, version.version).source or "")
        runs = client.search_runs([experiment_id(client, uri)], f"tags.`{tag}` = '{value}'", max_results=1)
        if not runs or not model_id:
            return False
        (run,) = runs
        inputs = run.inputs.dataset_inputs if run.inputs else []
        data = {"dataset_name": inputs[0].dataset.name, "dataset_digest": inputs[0].dataset.digest} if inputs else {}
        # What was measured at other steps are curves.
        points = [client.get_metric_history(run.info.run_id, key)[-1] for key in run.data.metrics]
        shown = [
            Metric(each.key, each.value, each.timestamp, each.step, model_id=model_id, run_id=run.info.run_id, **data)
            for each in points
            if not each.step
        ]
        client.log_batch(run.info.run_id, metrics=shown)
    return bool(shown)


def model_signature(outputs: Sequence[Column], params: Mapping[str, tuple[str, Any]]) -> ModelSignature:
    """An MLflow signature that leaves inputs as they are given. params: name -> (type, default)."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    specs = [ParamSpec(name, kind, default) for name, (kind, default) in params.items()]
    columns = Schema([ColSpec(kind, name, required) for name, kind, required in outputs])
    return ModelSignature(outputs=columns, params=ParamSchema(specs))


def installed(packages: Sequence[str]) -> list[str]:
    """Those of `packages` that are installed here, pinned to their versions."""
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for package in packages:
        try:
            # A local build's suffix (2.13.0+cpu) names no version that can be asked for.
            found.append(f"{package}=={version(package).partition('+')[0]}")
        except PackageNotFoundError:
            continue
    return found


def _shortened(description: str) -> str:
    """Whole lines, as many as the store takes."""
    if len(description) <= MAX_DESCRIPTION_CHARACTERS:
        return description
    whole_lines, _, _ = description[: MAX_DESCRIPTION_CHARACTERS - len(CUT)].rpartition("\n")
    return whole_lines + CUT


def _upload(client: MlflowClient, model_id: str, folder: str, path: Path) -> None:
    """The manifest last, so that an upload that was cut off leaves no folder that looks whole."""
    for file in sorted(path.iterdir(), key=lambda file: (file.name == MANIFEST, file.name)):
        client.log_model_artifact(model_id, str(file), folder)


def _bytes_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def _ensure_model(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if not is_missing(error):
            raise
        client.create_registered_model(name, description=MODEL_DESCRIPTION)


def _model_id(source: str) -> str:
    """Of the logged model that a version was made of, which MLflow names in its source alone; "" where that is a folder."""
    return source.removeprefix(LOGGED) if source.startswith(LOGGED) else ""


def _living_model(client: MlflowClient, version: Version) -> str:
    """The id of the version's logged model; "" where it has none, or outlived it."""
    model_id = _model_id(client.get_model_version(version.name, version.version).source or "")
    return model_id if _model_tags(client, model_id) else ""


def _model_tags(client: MlflowClient, model_id: str) -> dict[str, str]:
    """Of a logged model; none where a version has none, or outlived it."""
    from mlflow.exceptions import MlflowException

    try:
        return dict(client.get_logged_model(model_id).tags) if model_id else {}
    except MlflowException as error:
        if not is_missing(error):
            raise
        return {}
