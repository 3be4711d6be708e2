"""The bundle of a registered model: an MLflow URI to the folder of its files."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from core.errors import BadInput

# Where a project keeps its registry unless the environment names another.
STORE = Path("mlflow.db")
# Inside the files of a registered model (MLflow's layout of a pyfunc's artefacts).
INSIDE = Path("artifacts/bundle")
MODELS, RUNS = "models:/", "runs:/"


def bundle_folder(model: str | Path) -> Path:
    """The folder of a bundle: `model` itself, or of a registered model's files. Raises BadInput where there is none.

    model: a folder, or an MLflow URI such as models:/transfusion@champion or models:/transfusion/3.
    """
    if not str(model).startswith((MODELS, RUNS)):
        if not Path(model, "manifest.json").is_file():
            raise BadInput(
                f"there is no bundle at {Path(model).absolute()}; `make repro` leaves one in artifacts/bundle of the project's"
                " folder, where this is to be run, or another is named with --model"
            )
        return Path(model)
    files = _files_of(str(model))
    if not (files / INSIDE).is_dir():
        raise BadInput(f"{model} is no model of this pipeline: it holds no {INSIDE}; name one that `pipelines.register` made")
    return files / INSIDE


def _files_of(uri: str) -> Path:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        import mlflow
    except ImportError as error:
        raise BadInput(f"{uri} needs MLflow, which does not import here ({error}); name a bundle's folder instead") from None
    if not os.environ.get("MLFLOW_TRACKING_URI") and not mlflow.is_tracking_uri_set():
        if not STORE.is_file():
            raise BadInput(
                f"there is no {STORE} in {Path.cwd()}; run from the project's folder, set MLFLOW_TRACKING_URI, or name a bundle"
            )
        mlflow.set_tracking_uri(f"sqlite:///{STORE}")
    try:
        return _fetched(uri)
    except Exception as error:
        # MLflow passes on whatever its stores raise: of SQL, of HTTP, of buckets.
        said = re.sub(r"//[^/@\s]*@", "//", (str(error).splitlines() or [""])[0])
        store = re.sub(r"//[^/@\s]*@", "//", mlflow.get_tracking_uri())
        raise BadInput(
            f"{uri} cannot be had from {store} ({type(error).__name__}: {said}); check its name and the store"
        ) from None


def _fetched(uri: str) -> Path:
    """The model's files where they lie, or a copy of them that goes when this process ends."""
    from mlflow.artifacts import download_artifacts
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    repository: Any = get_artifact_repository(uri)
    while hasattr(repository, "repo"):
        repository = repository.repo
    if isinstance(repository, LocalArtifactRepository):
        return Path(download_artifacts(uri))
    copy = tempfile.mkdtemp(prefix="transfusion-")
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    return Path(download_artifacts(uri, dst_path=copy))
