"""Where does an unfinished run lie, and how is it gone on with? One folder a run, and in it one folder a checkpoint.

The transformer's training and the autoencoder's keep different states in the same way: a checkpoint stands whole, under a
manifest, or not at all, and one that its manifest does not vouch for is passed over for the one before it.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from components.runtime.failure import BadInput
from components.runtime.files import fresh_folder, publish, read_manifest, write_manifest


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """folder: where the run keeps what has to survive a kill; absolute, because a worker's working directory is Ray's."""

    folder: Path

    @property
    def store(self) -> Path:
        """The checkpoints; Ray Train keeps its own notes there too."""
        return self.folder / "run"

    @property
    def lines(self) -> Path:
        """What worker 0 says; the process that started it prints it."""
        return self.folder / "progress.log"

    @property
    def finished(self) -> Path:
        """The result, whole once its manifest stands."""
        return self.folder / "finished"

    def is_finished(self, kind: str) -> bool:
        """Whether an earlier process came so far that only publishing is left. kind: of the result's manifest."""
        try:
            read_manifest(self.finished, kind=kind)
        except BadInput:
            return False
        return True

    @contextmanager
    def only_writer(self) -> Iterator[None]:
        """Wait until no other process writes here: workers outlive a killed driver by a few seconds."""
        with (self.folder / "writer.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def say(self, line: str) -> None:
        """Append to `lines`."""
        with self.lines.open("a") as file:
            file.write(line + "\n")


def folder_of(store: Path, step: int) -> Path:
    """Where the checkpoint of `step` stands."""
    return store / f"step-{step:08d}"


def checkpoints(store: Path) -> list[Path]:
    """The folders of the store's checkpoints, whole or not, the newest first."""
    return sorted(store.glob("step-*"), reverse=True)


@contextmanager
def written_checkpoint(store: Path, step: int, *, kind: str) -> Iterator[Path]:
    """Where to write the files of a checkpoint that is to stand at `folder_of(store, step)` whole or not at all."""
    # A name beside the checkpoints that none of them has; it is renamed when the manifest stands.
    partial = fresh_folder(store / ".partial")
    yield partial
    write_manifest(partial, kind=kind, step=step)
    publish(partial, folder_of(store, step))


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
        return step
    return 0
