"""Folders of Ray clusters of our own: made at a short path, removed with the cluster, or by the next one."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

from core.leftovers import is_alive

REMOVAL_TRIES = 20


def remove_folder(folder: Path) -> None:
    """Of a cluster that was stopped; what ends a moment later may still have written there."""
    for _ in range(REMOVAL_TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)


def temporary_folder() -> Path:
    """A short path, for Unix sockets may not be longer than about 100 bytes; leftovers of killed runs are removed."""
    parent = Path("/tmp") if os.access("/tmp", os.W_OK) else Path(tempfile.gettempdir())
    for left in parent.glob("trf-*"):
        owner = left.name.split("-")[1]
        if owner.isdecimal() and not is_alive(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"trf-{os.getpid()}-", dir=parent))
