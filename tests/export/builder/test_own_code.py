"""A bundle's own code answers where this repository is not, and code of two versions in one process stays apart."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from core.manifest import write_manifest
from export.builder.own_code import PACKAGES, ROOT, module_files, renamed, write_code
from export.bundle import CODE
from tests.export.conftest import Made

# In another folder, which is searched first and holds files of the same names; nothing of ours can be imported, nor what a
# bundle does not need.
ELSEWHERE = """
import importlib.util, runpy, sys
sys.meta_path[:] = [finder for finder in sys.meta_path if not getattr(finder, "__module__", "").startswith("__editable__")]
assert not any(importlib.util.find_spec(name) for name in ("core", "export", "model", "pipelines", "components"))
sys.path.insert(0, "")
assert importlib.util.find_spec("model").origin.startswith(sys.argv[2])
sys.modules.update(dict.fromkeys(("mlflow", "pandas", "ray", "dvc", "diffusers", "grimp", "fsspec", "sklearn", "pyarrow")))
code = sys.argv[1]
runpy.run_path(code)["open_model"]().ask("a red three").save("python.png")
sys.argv[1:] = ["a red three", "-o", "command.png"]
runpy.run_path(code, run_name="__main__")
"""


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A user's folder with modules of our packages' names."""
    folder = tmp_path / "elsewhere"
    (folder / "core").mkdir(parents=True)
    for name in ("model.py", "export.py", "core/__init__.py"):
        (folder / name).write_text("raise SystemExit('a file of the user was taken for ours')\n")
    return folder


def test_a_bundle_answers_in_another_folder_without_this_repository(made: Made, elsewhere: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.bundle.folder.rglob("*")}
    line = [sys.executable, "-I", "-c", ELSEWHERE, str(made.bundle.folder / CODE), str(elsewhere)]
    done = subprocess.run(line, cwd=elsewhere, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("command.png (guidance 3.5, 4 steps of heun, seed 0, onnxruntime)")
    pictures = [(elsewhere / name).read_bytes() for name in ("python.png", "command.png")]
    assert pictures[0] == pictures[1] and pictures[0].startswith(b"\x89PNG")
    # No bytecode is left behind, which DVC would take for a change.
    assert {path: path.stat().st_mtime_ns for path in made.bundle.folder.rglob("*")} == before


def test_code_of_two_versions_stays_apart_in_one_process(made: Made, copied: Path, tmp_path: Path) -> None:
    from export.run.pyfunc import own_module

    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / "other" / package, ignore=shutil.ignore_patterns("__pycache__"))
    changed = tmp_path / "other/export/run/predictor.py"
    changed.write_text(changed.read_text().replace('"prompt is empty"', '"prompt is void"'))
    write_code(copied / CODE, root=tmp_path / "other")
    write_manifest(copied, kind="bundle")
    folders = (made.bundle.folder, copied)
    modules = [own_module(folder / CODE, "export.run.served") for folder in folders]
    assert modules[0] is not modules[1] and modules[0] is own_module(folders[0] / CODE, "export.run.served")
    served = [module.Served(folder) for module, folder in zip(modules, folders, strict=True)]
    for _ in range(2):
        errors = [one.answers([{"task": "text", "prompt": ""}], {})[0]["error"] for one in served]
        assert errors == ["prompt is empty", "prompt is void"]
    drawn = [one.answers(["a red three"], {"seed": 3})[0]["image_png"] for one in served]
    assert drawn[0] == drawn[1] and drawn[0].startswith(b"\x89PNG")


def test_equal_code_gives_equal_bytes_and_other_code_another_name(tmp_path: Path) -> None:
    package = write_code(tmp_path / "one.pyz")
    assert write_code(tmp_path / "two.pyz") == package
    assert (tmp_path / "one.pyz").read_bytes() == (tmp_path / "two.pyz").read_bytes()
    names = {name.removeprefix(f"{package}/") for name in zipfile.ZipFile(tmp_path / "one.pyz").namelist()}
    assert set(module_files()) <= names
    assert not any(name.startswith(("export/builder/", "components/", "pipelines/")) for name in names)


def test_imports_of_ours_are_renamed_line_for_line() -> None:
    source = (
        '"""from core.errors import BadInput"""\n'
        "import json\n"
        "from core.errors import (\n    BadInput,\n)\n"
        "from modelling import x\n"
        "def f():\n    from model.config import ModelConfig; from export import ask\n"
    )
    assert renamed(source, "p", "a.py") == (
        '"""from core.errors import BadInput"""\n'
        "import json\n"
        "from p.core.errors import (\n    BadInput,\n)\n"
        "from modelling import x\n"
        "def f():\n    from p.model.config import ModelConfig; from p.export import ask\n"
    )
    with pytest.raises(ValueError, match=r"^a\.py:1: write the import as"):
        renamed("import core.errors\n", "p", "a.py")
