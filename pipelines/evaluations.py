"""What an evaluation left: in the project, with a registered version, in MLflow's runs, or at a revision of git."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.evaluation.differences import Evaluation
from components.evaluation.kept_items import KeptItems, check_items, items_or_why
from components.runtime.provenance import git
from components.runtime.registry import Version, version_of
from components.runtime.run_evaluations import evaluation_run, run_artifact
from components.runtime.tracking_store import tracking_uri
from core.errors import BadInput
from core.files import read_json
from core.manifest import MANIFEST, read_manifest
from pipelines import paths
from pipelines.evaluation_run import FOLDER, ITEMS
from pipelines.promotion import measured

WORKSPACE = "workspace"
METRICS = "metrics.json"
KINDS = (
    "a version's number or alias, models:/NAME/NUMBER, models:/NAME@ALIAS, the id of an MLflow run, a revision of git, the "
    f"name of a DVC experiment, or {WORKSPACE}"
)
EXPERIMENTS = "refs/exps"
KEPT_NONE = "its evaluation kept none"


def evaluated(run: str, name: str) -> Evaluation:
    """The evaluation that a user names. name: of the registered model. BadInput where there is none of that name."""
    if run == WORKSPACE:
        return _in_the_workspace()
    if found := re.fullmatch(r"models:/([^/@]+)(?:/(\d+)|@(.+))", run):
        return _of_version(run, found[1], found[2] or found[3])
    if re.fullmatch(r"[0-9a-f]{32}", run):
        return _of_run(run)
    if re.fullmatch(r"[0-9]{1,9}", run):
        return _of_version(run, name, run)
    if commit := _commit(run):
        return _at_revision(run, commit)
    return _of_version(run, name, run)


def _in_the_workspace() -> Evaluation:
    report = paths.EVALUATION / METRICS
    if not report.is_file():
        raise BadInput(f"{report} is missing, so nothing was evaluated in this project; run `dvc repro`, or name another run")
    kept, why = (None, KEPT_NONE)
    if paths.EVALUATION_ITEMS.is_dir():
        kept, why = _of_the_report(paths.EVALUATION_ITEMS, lambda: read_manifest(paths.EVALUATION, kind="evaluation"))
    return Evaluation(WORKSPACE, "what lies in the project now", read_json(report), kept, why)


def _of_the_report(items: Path, report: Callable[[], Mapping[str, Any]]) -> tuple[KeptItems | None, str]:
    """As `items_or_why`. The report is in git and the items in DVC: what lies together may be of two evaluations.

    report: gives the report's manifest.
    """
    try:
        check_items(items, report())
    except BadInput as error:
        # Where a copy of them lies tells nobody anything.
        return None, str(error).replace(str(items), paths.EVALUATION_ITEMS.as_posix()).partition("; ")[0]
    return items_or_why(items)


def _of_version(run: str, name: str, asked: str) -> Evaluation:
    uri = tracking_uri()
    version = version_of(uri, name, version=asked) if asked.isdecimal() else version_of(uri, name, alias=asked)
    if version is None:
        what = f"version {asked}" if asked.isdecimal() else f"version with the alias {asked!r}"
        raise BadInput(f"{run} names no evaluation: {name} has no {what} in {uri}. Give {KINDS}")
    if not version.metrics:
        raise BadInput(f"{run}: version {version.version} of {name} in {uri} was registered without figures; name another run")
    found = measured(uri, version)
    why = found.why_none or "nothing was kept with the version"
    return Evaluation(run, _of_what(name, version), version.metrics, found.kept, why)


def _of_what(name: str, version: Version) -> str:
    trained = version.tags.get("trained", "")
    return f"version {version.version} of {name}" + (f": {trained}" if trained else "")


def _of_run(run: str) -> Evaluation:
    uri = tracking_uri()
    evaluation = evaluation_run(uri, run)
    with run_artifact(uri, evaluation.run_id, f"{FOLDER}/{METRICS}") as report:
        if report is None:
            raise BadInput(f"{run}: its evaluation has not arrived in {uri}; `python -m pipelines.sync` sends it")
        metrics = read_json(report)
    with run_artifact(uri, evaluation.run_id, ITEMS) as items:
        kept, why = items_or_why(items) if items else (None, KEPT_NONE)
    return Evaluation(run, evaluation.name, metrics, kept, why)


def _commit(run: str) -> str:
    """Of a revision of git, or of a DVC experiment by its name; "" where there is none."""
    try:
        refs = git("for-each-ref", "--format=%(objectname) %(refname)", EXPERIMENTS).splitlines()
        commits = {line.split()[0] for line in refs if line.rpartition("/")[2] == run}
        if len(commits) > 1:
            raise BadInput(f"{len(commits)} experiments are called {run}; name the commit, which `dvc exp show --sha` lists")
        return commits.pop() if commits else git("rev-parse", "--verify", "--quiet", f"{run}^{{commit}}").strip()
    except OSError:
        return ""


def _at_revision(run: str, commit: str) -> Evaluation:
    try:
        metrics = json.loads(git("show", f"{commit}:./{(paths.EVALUATION / METRICS).as_posix()}"))
        subject = git("log", "-1", "--format=%s", commit).strip()
    except (OSError, ValueError):
        raise BadInput(f"{run}: no {paths.EVALUATION / METRICS} was committed at {commit[:8]}; name another revision") from None
    with _from_cache(commit) as items:
        kept, why = (None, "DVC's cache does not have them")
        if items:
            kept, why = _of_the_report(items, lambda: _committed_manifest(commit))
    return Evaluation(run, f"commit {commit[:8]}: {subject}", metrics, kept, why)


def _committed_manifest(commit: str) -> dict[str, Any]:
    """Of the evaluation's report. BadInput where it was not committed with it."""
    path = paths.EVALUATION / MANIFEST
    try:
        manifest = json.loads(git("show", f"{commit}:./{path.as_posix()}"))
        return manifest | {"kind": manifest["kind"]}
    except (OSError, ValueError, TypeError, KeyError):
        raise BadInput(f"{path} at {commit[:8]} does not say which evaluation it is of") from None


@contextmanager
def _from_cache(commit: str) -> Iterator[Path | None]:
    """A copy, for the block, of the items of a commit, from DVC's cache or its remote; None where neither has them."""
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException

    with tempfile.TemporaryDirectory(prefix="transfusion-") as copy:
        folder = Path(copy) / "items"
        try:
            DVCFileSystem(rev=commit).get(paths.EVALUATION_ITEMS.as_posix(), str(folder), recursive=True)
        except (DvcException, OSError):
            folder = None
        yield folder
