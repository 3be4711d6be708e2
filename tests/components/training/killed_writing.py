"""A process killed while it writes a checkpoint, at places spread over all lines that writing executes.

python -m tests.components.training.killed_writing FOLDER NUMBER prints a JSON line: how many places there were, and what went
wrong at any of them. A process of its own, because it forks.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from components.training.checkpoint_folders import checkpoints
from components.training.checkpoints import checked
from core.errors import BadInput
from tests.components.training.tiny_state import TinyState, after, assert_same, restored, save, values

# What writes; torch's own lines between do nothing to the disk.
WRITERS = ("components/training/checkpoint", "components/training/shard_files", "components/training/tensor_file", "core/")


def main(folder: Path, number: int) -> None:
    """Kill and look, `number` times."""
    states = {step: after(step, seed=1) for step in (1, 2, 3)}
    for step in (1, 2):
        save(folder / "before", states[step], step)
    num_lines = lines_of(lambda: save(fresh(folder), states[3], 3))
    places = np.unique(np.linspace(1, num_lines, number).astype(int)).tolist()
    problems = [said for place in places if (said := killed(fresh(folder), states, place))]
    print(json.dumps({"lines": num_lines, "places": len(places), "problems": problems}))


def fresh(folder: Path) -> Path:
    """A store with two checkpoints, the older of which is to go."""
    shutil.rmtree(folder / "store", ignore_errors=True)
    shutil.copytree(folder / "before", folder / "store")
    return folder / "store"


def lines_of(work: Callable[[], object], last: int = 0) -> int:
    """How many lines of those files `work` executes, in whatever thread; at the line number `last` this process is killed."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        if not any(name in frame.f_code.co_filename for name in WRITERS):
            return None
        count += event == "line"
        if last and count >= last:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    threading.settrace(trace)
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(None)
        threading.settrace(None)  # pyright: ignore[reportArgumentType]
    return count


def killed(store: Path, states: dict[int, TinyState], place: int) -> str:
    """What is wrong after a kill at that line; "" where nothing is."""
    child = os.fork()
    if child == 0:
        lines_of(lambda: save(store, states[3], 3), last=place)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status != signal.SIGKILL:
        return f"line {place}: not killed"
    whole = [each.name for each in checkpoints(store) if is_whole(each)]
    loaded, said = TinyState(seed=9), list[str]()
    step = restored(store, loaded, said)
    if step not in (2, 3) or not whole or any("passed over" in line for line in said):
        return f"line {place}: step {step}, whole {whole}, said {said}"
    assert_same(values(loaded), values(states[step]))
    # Half a checkpoint is in nobody's way.
    save(store, states[3], 3)
    left = sorted(path.name for path in store.iterdir())
    return "" if left == ["step-00000002", "step-00000003"] else f"line {place}: {left} are left"


def is_whole(folder: Path) -> bool:
    """Whether its manifest vouches for it."""
    try:
        checked(folder)
    except BadInput:
        return False
    return True


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
