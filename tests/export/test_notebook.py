"""The notebook runs from top to bottom on a bundle, and stands in git without what a run leaves in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.export.conftest import Made

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "docs/ask.ipynb"


def notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_draws_and_describes(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In docs/ of a project, as a reader opens it."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts/bundle").symlink_to(made.bundle.folder)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    client = NotebookClient(
        notebook(),
        # A busy machine is no fault of the notebook's: by default a cell's last outputs may take 4 s to come.
        timeout=600,
        startup_timeout=300,
        iopub_timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": tmp_path / "docs"}},
    )
    outputs = [output for cell in client.execute().cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 5
    said = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    assert said.count("read in it: ") == 3


def test_git_holds_it_without_outputs() -> None:
    read = notebook()
    nbformat.validate(read)
    cells = [cell for cell in read.cells if cell.cell_type == "code"]
    assert cells and not [cell for cell in cells if cell.outputs or cell.execution_count], "clear all outputs before a commit"
    assert set(read.metadata) == {"kernelspec", "language_info"} and set(read.metadata.language_info) == {"name"}
