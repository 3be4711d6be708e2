"""Folders of unfinished work, one for each combination of inputs, settings and code: `.work/<stage>/<digest>`.

A stage that is done removes its own folder and no other. What other settings began stays, however old: it may hold hours of
training, and a stage cannot know whether anyone will come back to it. So it is said.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

# Renamed first, so that a kill leaves no half folder that looks like work to resume.
GONE = "gone-"


def forget(folder: Path) -> None:
    """Remove the folder of work that is done, if it is there, and say what stands beside it."""
    if not folder.parent.exists():
        return
    if folder.exists():
        folder.replace(folder.with_name(f"{GONE}{folder.name}"))
    for gone in folder.parent.glob(f"{GONE}*"):
        shutil.rmtree(gone)
    if others := sorted(path for path in folder.parent.iterdir() if path.is_dir()):
        mib = sum(file.stat().st_size for path in others for file in path.rglob("*") if file.is_file()) / 2**20
        what = "one other configuration" if len(others) == 1 else f"{len(others)} other configurations"
        print(
            f"{folder.parent} keeps the unfinished work of {what} ({mib:.0f} MiB): they resume from there; remove the folders "
            "that are not wanted any more",
            flush=True,
        )
        return
    with suppress(OSError):  # a file that is not ours may lie there
        folder.parent.rmdir()
