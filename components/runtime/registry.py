"""The model registry: one version a bundle, its aliases, and the rule on metrics that lets one be champion."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from components.runtime.store_failures import failures_explained, is_missing
from components.runtime.tracking import RunIdentity
from components.runtime.tracking_store import client_of, fluent
from core.metric_keys import standard_error_key

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

# (name, type: an MLflow DataType's name, required)
Column = tuple[str, str, bool]
# On the version itself, so that the rule judges what was measured when it was registered, whatever its run logs later.
METRIC_TAG = "metric/"
BUNDLE_TAG = "bundle_sha256"
MAX_DESCRIPTION_CHARACTERS = 5000


class Version(NamedTuple):
    """A registered model version. metrics: those of its run, the last value of each."""

    name: str
    version: str
    run_id: str
    tags: dict[str, str]
    metrics: dict[str, float]


class Decision(NamedTuple):
    """champion: whether the version takes the alias. reasons: one sentence for each thing that was looked at."""

    champion: bool
    reasons: tuple[str, ...]


def decide(
    metrics: Mapping[str, float],
    champion: Mapping[str, float] | None,
    *,
    floors: Mapping[str, float],
    compare: str,
    higher_is_better: bool = True,
) -> Decision:
    """All floors hold, and `compare` is not worse than the champion's. champion: its metrics, None without one."""
    reasons, fit = [], True
    for name, floor in sorted(floors.items()):
        value = metrics.get(name)
        holds = value is not None and value >= floor
        fit &= holds
        reasons.append(f"{name} {_show(value)} {'reaches' if holds else 'misses'} its floor {_show(floor)}")
    mine, theirs = metrics.get(compare), champion.get(compare) if champion is not None else None
    if champion is None:
        reasons.append("there is no champion yet")
    elif mine is None:
        fit = False
        reasons.append(f"{compare} was not measured, so it cannot be compared with the champion's {_show(theirs)}")
    elif theirs is not None:
        # Written so that a NaN counts as worse.
        worse = not (mine >= theirs if higher_is_better else mine <= theirs)
        fit &= not worse
        verdict = "worse than" if worse else "not worse than"
        # Each measured with a standard error of its own, where it has one.
        error = math.hypot(*(values.get(standard_error_key(compare), 0.0) for values in (metrics, champion)))
        close = " (the difference is within two standard errors)" if 0 < abs(mine - theirs) <= 2 * error else ""
        reasons.append(f"{compare} {_show(mine)} is {verdict} the champion's {_show(theirs)}{close}")
    return Decision(fit, tuple(reasons))


def version_metrics(version: Version) -> dict[str, float]:
    """The metrics a version was registered with."""
    tags = version.tags.items()
    return {key.removeprefix(METRIC_TAG): float(value) for key, value in tags if key.startswith(METRIC_TAG)}


def find_version(uri: str, name: str, bundle_sha256: str) -> Version | None:
    """The newest version of `name` that is this very bundle. BadInput where the store does not answer."""
    # Compared here: a filter on tags is not offered by every kind of store.
    client = client_of(uri)
    with failures_explained(uri):
        every = client.search_model_versions(f"name = '{name}'")
    matching = [int(entry.version) for entry in every if entry.tags.get(BUNDLE_TAG) == bundle_sha256]
    return version_of(uri, name, version=str(max(matching))) if matching else None


def version_of(uri: str, name: str, *, alias: str = "", version: str = "") -> Version | None:
    """The version with an alias or a number, with its run's metrics; None where there is none."""
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
        run_id = found.run_id or ""
        metrics = _metrics_of(client, run_id) if run_id else {}
    return Version(name, str(found.version), run_id, dict(found.tags), metrics)


def set_alias(uri: str, name: str, alias: str, version: str) -> None:
    """Let `models:/<name>@<alias>` mean this version from now on."""
    client = client_of(uri)
    with failures_explained(uri):
        client.set_registered_model_alias(name, alias, version)


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
    mlflow = fluent(identity.tracking_uri)
    with failures_explained(identity.tracking_uri), mlflow.start_run(run_id=identity.run_id):
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(python_model),
            artifacts={name: str(path.absolute()) for name, path in artifacts.items()},
            signature=signature,
            input_example=input_example,
            pip_requirements=list(pip_requirements),
        )
    return logged.model_uri


def create_version(
    identity: RunIdentity,
    name: str,
    *,
    python_model: Path,
    bundle: Path,
    bundle_sha256: str,
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
    description: str,
    signature: ModelSignature,
    input_example: Any,
    pip_requirements: Sequence[str],
) -> Version:
    """Log the bundle as a models-from-code pyfunc and make a version of it, its tags set in the same call.

    description: cut to what the store takes.
    """
    uri = log_model(
        identity,
        python_model=python_model,
        artifacts={"bundle": bundle},
        signature=signature,
        input_example=input_example,
        pip_requirements=pip_requirements,
    )
    client = client_of(identity.tracking_uri)
    all_tags = {METRIC_TAG + key: repr(float(value)) for key, value in metrics.items()}
    all_tags |= {BUNDLE_TAG: bundle_sha256, **tags}
    with failures_explained(identity.tracking_uri):
        _ensure_model(client, name)
        made = client.create_model_version(
            name,
            uri,
            run_id=identity.run_id,
            tags=all_tags,
            description=description[:MAX_DESCRIPTION_CHARACTERS],
            model_id=uri.rpartition("/")[2],
        )
    found = version_of(identity.tracking_uri, name, version=str(made.version))
    assert found is not None
    return found


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


def _ensure_model(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if not is_missing(error):
            raise
        client.create_registered_model(name)


def _metrics_of(client: MlflowClient, run_id: str) -> dict[str, float]:
    """A version outlives its run."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if not is_missing(error):
            raise
        return {}
    return dict(run.data.metrics) if run.info.lifecycle_stage == "active" else {}


def _show(value: float | None) -> str:
    return "(not measured)" if value is None else f"{value:.4g}"
