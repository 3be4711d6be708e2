"""One trained folder and one export for all files here: an export takes half a minute."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pipelines import export
from pipelines.params import load
from pipelines.sections import Params
from tests.pipelines.bundle_stages.trained_folder import inside, write_trained_folder
from tests.pipelines.stage_process import REPOSITORY


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    """A working directory for export, register and infer."""
    root = tmp_path_factory.mktemp("stages")
    shutil.copy(empty_database, root)
    with inside(root):
        write_trained_folder()
    return root


@pytest.fixture(scope="session")
def params() -> Params:
    return load(REPOSITORY / "params.yaml", ["infer.num_solver_steps=2", "infer.max_new_tokens=4", "infer.batch_size=2"])


@pytest.fixture(scope="session")
def exported(folder: Path, params: Params) -> Path:
    """The bundle."""
    torch.manual_seed(17)
    with inside(folder):
        export.main(params)
    return folder / "artifacts/bundle"


@pytest.fixture(scope="module", autouse=True)
def _in_the_folder(folder: Path) -> Iterator[None]:
    with inside(folder):
        yield
