"""A stage's part of a tiny run, as a process that can be killed: it starts the workers by Ray and waits for them.

python -m benchmarks.faults.training.driver PROJECT NAME SIZE STEPS [STEP_TIMEOUT_S [MISBEHAVIOUR STEP]]

The last worker misbehaves once, as it reads the rows of that step.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.faults.training.tiny import tiny_run, write_down_rows
from components.runtime.world import World
from components.training.transformer.run import TransformerRun
from core.errors import BadInput, WorkersFailed

# From the driver to its workers, which may be on another cluster than one of its own.
MISBEHAVIOUR = "misbehaviour"


def train_writing_down(run: TransformerRun, world: World) -> None:
    """What a worker does."""
    import torch

    from components.training.transformer.worker import train

    torch.set_num_threads(1)
    # The same on all workers, and later in later tries.
    write_down_rows(run.folder / f"rows-{world.rank}.log", world.agreed(time.time_ns()))
    wish = run.folder / MISBEHAVIOUR
    if wish.exists() and world.rank == world.size - 1:
        kind, step = wish.read_text().split()
        misbehave_at(int(step), kind, wish)
    train(run, world)


def misbehave_at(at: int, kind: str, wish: Path) -> None:
    """Once, as this process reads the rows of a step: "stop" itself, or keep Python's "lock"."""
    from components.data.loader import PackedRows

    read = PackedRows.batch

    def batch(self: PackedRows, rows: Any, *, step: int, **options: Any) -> Any:
        if step == at and wish.exists():
            wish.unlink()
            if kind == "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            else:
                ctypes.PyDLL(None).sleep(3600)
        return read(self, rows, step=step, **options)

    PackedRows.batch = batch


def main(arguments: list[str]) -> int:
    """Exit code 1, and a sentence, where the workers fail for good."""
    project, name, size, steps, *rest = arguments
    changes: dict[str, Any] = {"max_steps": int(steps)} | ({"step_timeout_s": float(rest[0])} if rest else {})
    run = tiny_run(Path(project), name, **changes)
    if len(rest) > 1:
        (run.folder / MISBEHAVIOUR).write_text(" ".join(rest[1:]))
    try:
        run.run_workers(train_writing_down, int(size))
    except (BadInput, WorkersFailed) as error:
        print(error, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
