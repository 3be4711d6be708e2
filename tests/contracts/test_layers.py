"""Each folder imports only what it may. The layers themselves are import-linter contracts in pyproject.toml."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("pipelines", "components", "export", "model", "core")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

# Where each heavyweight may be imported; nothing else may.
HOMES = {
    "mlflow": {
        *(
            f"components/runtime/{name}.py"
            for name in ("tracking_store", "store_address", "store_failures", "delivery", "registry")
        ),
        "export/run/pyfunc.py",
        "export/run/registered.py",
    },
    "ray": {
        f"components/runtime/{name}.py"
        for name in ("actor_pool", "actors", "cluster", "lone_node", "lone_trainer", "ray_address", "rendezvous", "workers")
    },
    "great_expectations": {"components/data/validate/expectations.py"},
    "tensorrt": {"export/builder/to_tensorrt.py", "export/run/engine_tensorrt.py", "export/engine_key.py"},
    "diffusers": {"model/latents/autoencoder.py"},
}
BANNED_FILE_NAMES = {"utils.py", "helpers.py", "base.py", "misc.py"}


def _imports(path: Path) -> set[str]:
    found = set[str]()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def test_import_linter_contracts_hold() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([linter], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("library", sorted(HOMES))
def test_a_heavyweight_has_one_home(library: str) -> None:
    users = {str(path.relative_to(ROOT)) for path in SOURCES if library in _imports(path)}
    assert users <= HOMES[library]


def test_model_imports_torch_core_and_the_standard_library_only() -> None:
    allowed = {*sys.stdlib_module_names, "torch", "model", "core"}
    once = {"safetensors": "transfusion.py", "diffusers": "autoencoder.py"}
    for path in (ROOT / "model").rglob("*.py"):
        for library in _imports(path) - allowed:
            assert once.get(library) == path.name, f"{path.name} imports {library}"


def test_no_file_is_named_for_a_library_or_for_nothing() -> None:
    libraries = {"mlflow", "ray", "dvc", "onnx", "onnxruntime", "tensorrt", "torch", "datasets", "tokenizers", "diffusers"}
    for path in SOURCES:
        assert path.name not in BANNED_FILE_NAMES and path.stem not in libraries, path


def test_files_are_short_and_say_what_they_answer() -> None:
    for path in SOURCES:
        text = path.read_text()
        assert text.count("\n") <= 300, f"{path} has {text.count(chr(10))} lines"
        assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"


def test_pytest_looks_into_every_folder_of_tests(pytestconfig: pytest.Config) -> None:
    """By its own rules it passes over folders called build, dist or venv, and says nothing."""
    folders = {path.parent for path in (ROOT / "tests").rglob("test_*.py")}
    for name in {name for folder in folders for name in folder.relative_to(ROOT).parts}:
        assert not any(fnmatch(name, pattern) for pattern in pytestconfig.getini("norecursedirs")), name


def test_nothing_is_loaded_unsafely() -> None:
    """No pickle, no eval, no shell, no torch.load without weights_only."""
    unsafe = [
        r"\bpickle\.load",
        r"import yaml\b",  # PyYAML; ruamel reads what DVC reads
        r"(?<![\w.])eval\(",
        r"shell=True",
        r"torch\.load\((?!.*weights_only=True)",
    ]
    banned = re.compile("|".join(unsafe))
    for path in SOURCES:
        assert not banned.search(path.read_text()), path


def test_every_entry_point_imports_without_work(tmp_path: Path) -> None:
    """Importing any module writes no file and sets up no logging."""
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in SOURCES if path.name != "__init__.py"]
    # The import of the first is the model's declaration to MLflow, and the other's needs the extra lm-eval.
    special = ("export.run.pyfunc", "components.evaluation.harness.language_model")
    light = [name for name in modules if name not in special]
    script = f"import importlib, sys; sys.path.insert(0, {str(ROOT)!r}); [importlib.import_module(n) for n in {light!r}]"
    result = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert not list(tmp_path.iterdir())
