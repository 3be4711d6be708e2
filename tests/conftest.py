"""What every test shares: one torch thread, because tiny tensors on several threads mostly wait for each other.

And how processes share the tests: a file stays in one, and so do all the files that use one bundle. Processes end together when
the longest files begin first.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

torch.set_num_threads(1)
# Ray looks whether workers have ended once a second, and every test that trains would wait for it.
SOON = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2"}
LONGEST_FIRST = [
    # One clone, used in this order.
    *(f"tests/pages/test_{name}.py" for name in ("demonstration", "own_corpus", "report", "sharing", "pages")),
    "tests/export/",
    "tests/pipelines/bundle_stages/",
    "test_train.py",
    "test_autoencoder.py",
    "test_workers.py",
    "test_encoding.py",
    "test_doors.py",
    "test_recording_stores.py",
    "test_recording.py",
    "test_stage.py",
    "test_captions_learnt.py",
    "test_gpu.py",
    "test_inputs_away.py",
    "test_faults.py",
    "test_faults_training.py",
    "test_kills.py",
    "test_cluster.py",
    "test_compiled.py",
    "test_make.py",
]
# What a process makes once for all files of these folders, in half a minute and more, two need not make.
IN_ONE_PROCESS = (("tests/pages/",), ("tests/export/",), ("tests/pipelines/bundle_stages/",))


def pytest_configure(config: pytest.Config) -> None:
    """Signals as a terminal leaves them: what a shell starts in the background ignores some, and its children with it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.environ |= SOON


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order within a file stays."""
    items.sort(key=lambda item: next((at for at, name in enumerate(LONGEST_FIRST) if name in item.nodeid), len(LONGEST_FIRST)))


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tracking store to be copied, for MLflow takes seconds to make its tables."""
    from components.runtime.tracking_store import client_of

    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    client_of(f"sqlite:///{path}")
    return path


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """By file, as `--dist loadfile` does, but for the folders that stay together."""
    from xdist.scheduler import LoadFileScheduling

    class Together(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            together = (folders[0] for folders in IN_ONE_PROCESS if nodeid.startswith(folders))
            return next(together, super()._split_scope(nodeid))

    return Together(config, log)
