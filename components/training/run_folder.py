"""The folder of an unfinished run: its checkpoints, its lines and its result, and the processes that work on it."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from components.runtime.cluster import start_ray
from components.runtime.progress import PASSING
from components.runtime.workers import run_workers, set_up_worker
from components.runtime.world import World
from components.training.checkpoint_folders import newest_step
from components.training.checkpoints import TrainingState
from components.training.watchdog import Watchdog, hang, stopped_ended
from core.errors import BadInput
from core.files import named
from core.manifest import read_manifest

if TYPE_CHECKING:
    from components.training.checkpointer import Checkpointer


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """Where a run keeps what has to survive a kill."""

    folder: Path
    """Absolute, because a worker's working directory is Ray's."""

    @property
    def store(self) -> Path:
        """The checkpoints; Ray Train keeps its own notes there too."""
        return self.folder / "run"

    def newest_step(self) -> int:
        """The step of the newest checkpoint, 0 where there is none."""
        return newest_step(self.store)

    @property
    def lines(self) -> Path:
        """What worker 0 says; the process that started it prints it."""
        return self.folder / "progress.log"

    @property
    def finished(self) -> Path:
        """The result, whole once its manifest stands."""
        return self.folder / "finished"

    @property
    def hangs(self) -> Path:
        """The folder of what the workers' watchdogs note."""
        return self.folder / "hangs"

    def watchdog(self, world: World, timeout_s: float) -> Watchdog:
        """Ends this worker where a step takes longer; 0: never."""
        return Watchdog(self.hangs, world, timeout_s)

    def is_finished(self, kind: str) -> bool:
        """Whether an earlier process came so far that only publishing is left. kind: of the result's manifest."""
        try:
            read_manifest(self.finished, kind=kind)
        except BadInput:
            return False
        return True

    def run_workers(self, train: Callable[[Self, World], None], num_workers: int) -> None:
        """Run `train(self, world)` in so many processes; where one fails, all start again from the newest checkpoint."""
        settings = {"train": train, "run": self}
        with start_ray(), stopped_ended(self.hangs):
            run_workers(
                _worker,
                settings,
                num_workers=num_workers,
                store=self.store,
                lines=self.lines,
                reached=self.newest_step,
                hang=partial(hang, self.hangs),
            )

    def say(self, line: str, *, passes: bool = False) -> None:
        """Append to `lines`. passes: on a terminal it gives way to the next one."""
        with named(self.lines), self.lines.open("a", newline="") as file:
            file.write(line + (PASSING if passes else "") + "\n")

    @contextmanager
    def resumed(self, state: TrainingState, world: World) -> Iterator[Checkpointer]:
        """Load the newest whole checkpoint, where there is one, on all workers; gives what saves the next ones.

        No other process writes here inside the block, at whose end the last checkpoint is on disk. All workers enter and leave
        it together.
        """
        # Here, because torch.distributed.checkpoint takes a while to load, and the process that starts workers does without.
        from components.training.checkpointer import Checkpointer

        # Worker 0 alone, for what others write counts once worker 0 has given it a name; and the lock is one of processes, so
        # that the others would wait for ever.
        with self.writer_lock() if world.rank == 0 else nullcontext(), Checkpointer(self.store, state, world, self.say) as kept:
            kept.restore()
            yield kept

    @contextmanager
    def writer_lock(self) -> Iterator[None]:
        """Wait until no other process writes here: workers outlive a killed driver by a few seconds."""
        with (self.folder / "writer.lock").open("w") as lock:
            # The system lets go of it when its process ends, in whatever way.
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _worker(settings: dict[str, Any]) -> None:
    settings["train"](settings["run"], set_up_worker())
