"""The folder of an unfinished run, with a folder for each checkpoint, and how a run resumes from them.

A checkpoint stands whole, under a manifest, or not at all, and one that its manifest does not vouch for is passed over for the
one before it. The newest two whole ones are kept.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from components.runtime.cluster import start_ray
from components.runtime.progress import PASSING
from components.runtime.workers import run_workers, set_up_worker
from components.runtime.world import World
from components.training.checkpoints import TrainingState, load_state, save_state
from components.training.watchdog import Watchdog, hang, stopped_ended
from core.errors import BadInput
from core.files import atomic_replace, fresh_folder, named, read_json
from core.manifest import MANIFEST, read_manifest

# One more than the newest, to fall back on where its bytes have changed on disk.
NUM_KEPT = 2


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
        return max((_step_of(folder) for folder in checkpoints(self.store)), default=0)

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
    def resumed(self, state: TrainingState, world: World) -> Iterator[int]:
        """Load the newest whole checkpoint, where there is one, on all workers; gives the first step that is to be taken.

        No other process writes here inside the block. All workers enter it together.
        """
        # Worker 0 alone, for it alone writes; the lock is one of processes, and the others would wait for ever.
        with self.writer_lock() if world.rank == 0 else nullcontext():
            yield resume_together(self.store, partial(load_state, state=state), self.say, world) + 1

    @contextmanager
    def writer_lock(self) -> Iterator[None]:
        """Wait until no other process writes here: workers outlive a killed driver by a few seconds."""
        with (self.folder / "writer.lock").open("w") as lock:
            # The system lets go of it when its process ends, in whatever way.
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def save_checkpoint(self, state: TrainingState, step: int) -> Path:
        """Write the state after `step` whole or not at all; returns its folder."""
        with atomic_checkpoint(self.store, step) as partial_folder:
            save_state(partial_folder, state, step)
        return folder_of(self.store, step)


def _worker(settings: dict[str, Any]) -> None:
    settings["train"](settings["run"], set_up_worker(settings["num_threads"]))


def folder_of(store: Path, step: int) -> Path:
    """Where the checkpoint of `step` stands."""
    # Padded, so that names sort as steps do.
    return store / f"step-{step:08d}"


def checkpoints(store: Path) -> list[Path]:
    """The folders of the store's checkpoints, whole or not, the newest first."""
    return sorted(store.glob("step-*"), reverse=True)


@contextmanager
def atomic_checkpoint(store: Path, step: int) -> Iterator[Path]:
    """Where to write a checkpoint, its manifest too, that is to stand at `folder_of(store, step)` whole or not at all.

    Once it stands, the checkpoint before it is kept and no other.
    """
    # A name beside the checkpoints that none of them has; it is renamed when the manifest stands.
    unfinished = fresh_folder(store / ".partial")
    try:
        yield unfinished
        atomic_replace(unfinished, folder_of(store, step))
    except BaseException:
        # Where the disk is full, half a checkpoint is in the way of the next try.
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    # Later steps are of a run whose checkpoints could not be loaded: this one began before them.
    older = [each for each in _steps(store) if each < step]
    _keep(store, [step, *older[: NUM_KEPT - 1]])


def resume(store: Path, load: Callable[[Path], int], say: Callable[[str], None]) -> int:
    """Load the newest checkpoint of `store` whose bytes are right; returns its step, 0 where there is none.

    load: takes a checkpoint's folder and returns its step; raises BadInput, before it changes anything, where the
    manifest does not vouch for the folder.
    """
    for folder in checkpoints(store):
        try:
            step = load(folder)
        except BadInput as error:
            say(f"checkpoint {folder.name} is passed over: {error}")
            continue
        say(f"resumed from step {step} ({folder.name})")
        # What was passed over goes: those steps are taken again, and write their checkpoints anew.
        _keep(store, [step, *_whole_before(store, step)])
        return step
    return 0


def resume_together(store: Path, load: Callable[[Path], int], say: Callable[[str], None], world: World) -> int:
    """`resume` of several workers: worker 0, which holds the lock, chooses the checkpoint, and all load that one.

    Raises BadInput where another worker cannot load it.
    """
    if world.rank == 0:
        return world.agreed(resume(store, load, say))
    # The step and not the newest folder: looking for itself, a worker might settle on another one.
    step = world.agreed(0)
    if step:
        try:
            load(folder_of(store, step))
        except (BadInput, OSError) as error:
            raise BadInput(
                f"worker {world.rank} cannot load the checkpoint of step {step} that worker 0 loaded: {error}; all workers "
                "must see one and the same .work"
            ) from None
    return step


def _whole_before(store: Path, step: int) -> list[int]:
    """The newest whole checkpoint before `step`. It is not read where there is nothing to choose."""
    older = [each for each in _steps(store) if each < step]
    if len(older) < NUM_KEPT:
        return older
    return next(([each] for each in older if _is_whole(folder_of(store, each))), [])


def _is_whole(folder: Path) -> bool:
    try:
        read_manifest(folder, kind=read_json(folder / MANIFEST)["kind"])
    except (BadInput, KeyError, TypeError):
        return False
    return True


def _keep(store: Path, steps: list[int]) -> None:
    """Remove the checkpoints of all other steps."""
    for step in set(_steps(store)) - set(steps):
        shutil.rmtree(folder_of(store, step))


def _steps(store: Path) -> list[int]:
    """Of all checkpoints, whole or not, the newest first."""
    return [_step_of(folder) for folder in checkpoints(store)]


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))
