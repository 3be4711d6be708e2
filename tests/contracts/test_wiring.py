"""dvc.yaml, params.yaml, the stage modules and the docs tell one story."""

from __future__ import annotations

import ast
import dataclasses
import re
import typing
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from components.runtime.code_digest import PACKAGES
from pipelines import paths, wiring
from pipelines.sections import Params

# One looks at files alone, and there is nothing to report; the other reports all sections, and has none of its own.
WITHOUT_SECTION = {"inputs", "report"}
# Every text in params.yaml: what names files is watched by the stage `inputs`, the rest names none.
WATCHED = {
    "ingest.corpora.path": "ingest",
    "ingest.corpora.images": "ingest",
    # Watched as that of each entry that leaves it out.
    "ingest.corpus_defaults.images": "ingest",
    "ingest.tokenizer": "ingest",
    "autoencoder.pretrained": "autoencoder",
    "autoencoder.loss.lpips_weights": "autoencoder",
    "train.pretrained": "train",
    "evaluate.weights.inception": "evaluate",
    "evaluate.weights.clip": "evaluate",
    "infer.requests": "infer",
}
NO_PATHS = {
    "ingest.corpora.name",
    "train.sampling.prompts",
    "register.name",
    "register.bounds",
    "register.default_bounds",
    "register.compare",
}

ROOT = Path(__file__).resolve().parents[2]
NOT_STAGES = {
    *("__init__", "ancestry", "clean", "combinations", "configure", "described", "evaluate_bundle"),
    *("evaluation_inputs", "evaluation_run", "params", "pretrained", "promote"),
    *("sections", "loading", "named_files", "paths", "promotion", "repro", "stage", "summary", "sync", "ui", "unfinished"),
    *("compare", "evaluations", "options", "version_tags"),
    "wiring",
}


def _yaml(name: str) -> dict[str, Any]:
    return YAML(typ="safe").load((ROOT / name).read_text())


STAGES = wiring.stage_definitions(_yaml("dvc.yaml"))


def test_a_stage_has_one_name_in_five_places() -> None:
    modules = {path.stem for path in (ROOT / "pipelines").glob("*.py")} - NOT_STAGES
    sections = {field.name for field in dataclasses.fields(Params)}
    assert set(STAGES) == modules
    assert modules - WITHOUT_SECTION == sections == set(_yaml("params.yaml"))
    architecture = (ROOT / "docs" / "architecture.md").read_text()
    for name, body in STAGES.items():
        assert body["cmd"].split()[:3] == ["python", "-m", f"pipelines.{name}"]
        reports = [out for out in map(_out_path, body["outs"]) if out.startswith("reports/")]
        if name == "report":
            assert reports == ["reports/index.html"] and {*body["params"]} == sections
        else:
            assert (reports or name in WITHOUT_SECTION) and all(out.startswith(f"reports/{name}/") for out in reports)
        assert f"| {name}" in architecture
        assert body["desc"].endswith(".")


def test_git_or_dvcs_remote_carries_every_output() -> None:
    """What neither does is missing in a clone that pulls, where its stage and all after it run again."""
    for name, body in STAGES.items():
        for out in body["outs"]:
            in_git = isinstance(out, dict) and next(iter(out.values())).get("cache") is False
            assert in_git == _out_path(out).startswith("reports/"), f"{name}: {out}"


@pytest.mark.parametrize("name", sorted(STAGES))
def test_code_deps_equal_the_import_closure(name: str) -> None:
    listed = [dep for dep in STAGES[name]["deps"] if wiring.is_code(dep)]
    assert listed == wiring.code_deps(f"pipelines.{name}"), "run `make wire`"


@pytest.mark.parametrize("name", sorted(set(STAGES) - WITHOUT_SECTION))
def test_a_stage_depends_on_its_own_parameters(name: str) -> None:
    sections = {param.split(".")[0] for param in STAGES[name]["params"]}
    assert name in sections


def test_every_leaf_of_params_is_in_params_yaml() -> None:
    wanted = set(_leaves(Params, ()))
    given = set(_written(_yaml("params.yaml"), wanted, ()))
    assert given == wanted


def test_every_path_in_params_yaml_is_watched() -> None:
    texts = {".".join(path) for path, kind in _texts(Params, ())}
    assert texts == set(WATCHED) | NO_PATHS
    watching = STAGES["inputs"]
    assert watching["always_changed"] is True
    for stage in WATCHED.values():
        file = f"data/inputs/{stage}.json"
        assert file in map(_out_path, watching["outs"]) and file in STAGES[stage]["deps"]


def test_no_configuration_has_a_hidden_default() -> None:
    for kind in _dataclasses(Params):
        for field in dataclasses.fields(kind):
            no_default = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            assert no_default, f"{kind.__name__}.{field.name} has a default that DVC would not see"


def test_every_path_of_the_pipeline_is_a_dvc_path() -> None:
    known = {
        _out_path(out).replace("${key}", key)
        for body in STAGES.values()
        for out in body["outs"]
        for key in ("documents", "latents")
    }
    for name, value in vars(paths).items():
        if isinstance(value, Path) and name not in ("PARAMS", "REPORTS", "RAN", "WORK", "ENGINES"):
            assert any(out == str(value) or out.startswith(f"{value}/") for out in known), f"paths.{name}"


@pytest.mark.parametrize("page", ["README.md", "infra/README.md", "benchmarks/README.md", "docs/*.md"])
def test_every_module_that_a_page_names_is_there(page: str) -> None:
    """By its whole path, or by the end of it."""
    sources = [
        f"/{path.relative_to(ROOT)}" for top in (*PACKAGES, "benchmarks", "tests") for path in (ROOT / top).rglob("*.py")
    ]
    pages = sorted(ROOT.glob(page))
    assert pages
    for path in pages:
        for name in re.findall(r"`([\w/.-]+\.py)`", path.read_text()):
            assert any(source.endswith(f"/{name}") for source in sources), f"{path} names {name}"


def test_package_faces_hold_only_a_docstring() -> None:
    for package in wiring.PACKAGES:
        for face in (ROOT / package).rglob("__init__.py"):
            if face.parent == ROOT / "pipelines":
                continue  # it is run before a command's modules are loaded, and watches over that
            body = ast.parse(face.read_text()).body
            assert len(body) == 1 and isinstance(body[0], ast.Expr), face


def test_stage_modules_stay_thin() -> None:
    for name in STAGES:
        lines = (ROOT / "pipelines" / f"{name}.py").read_text().count("\n")
        assert lines <= 80, f"pipelines/{name}.py has {lines} lines"


def _out_path(out: str | dict[str, Any]) -> str:
    return out if isinstance(out, str) else next(iter(out))


def _dataclasses(kind: type) -> typing.Iterator[type]:
    yield kind
    for hint in typing.get_type_hints(kind).values():
        for inner in (hint, *typing.get_args(hint)):
            if dataclasses.is_dataclass(inner):
                yield from _dataclasses(typing.cast(type, inner))


def _texts(kind: typing.Any, path: tuple[str, ...]) -> typing.Iterator[tuple[tuple[str, ...], typing.Any]]:
    """Where free text can be set: not one of a few words, which are Literals."""
    if dataclasses.is_dataclass(kind):
        for name, hint in typing.get_type_hints(kind).items():
            yield from _texts(hint, (*path, name))
    elif kind is str:
        yield path, kind
    elif typing.get_origin(kind) is not typing.Literal:
        for inner in typing.get_args(kind):
            yield from _texts(inner, path)


def _leaves(kind: type, path: tuple[str, ...]) -> typing.Iterator[tuple[str, ...]]:
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from _leaves(typing.cast(type, hint), (*path, field.name))
        else:
            yield (*path, field.name)


def _written(tree: Any, leaves: set[tuple[str, ...]], path: tuple[str, ...]) -> typing.Iterator[tuple[str, ...]]:
    if path in leaves or not isinstance(tree, dict):
        yield path
    else:
        for key, value in tree.items():
            yield from _written(value, leaves, (*path, key))
