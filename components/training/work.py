"""What is a training process told, and where does the unfinished run lie? One record of settings and absolute paths."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from components.runtime.tracking import RunIdentity
from components.training.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Work:
    """All paths are absolute, because a worker's working directory is Ray's.

    quarantine: the documents to leave out, or None. folder: where the run keeps what has to survive a kill.
    """

    config: TrainConfig
    run: RunIdentity
    latents: Path
    quarantine: Path | None
    tokenizer: Path
    autoencoder: Path
    folder: Path

    @property
    def store(self) -> Path:
        """The checkpoints; Ray Train keeps its own notes there too."""
        return self.folder / "run"

    @property
    def journal(self) -> Path:
        """Every reported number, a JSON line a report."""
        return self.folder / "metrics.jsonl"

    @property
    def lines(self) -> Path:
        """What worker 0 says; the process that started it prints it."""
        return self.folder / "progress.log"

    @property
    def samples(self) -> Path:
        """The last pictures drawn."""
        return self.folder / "samples.png"

    @property
    def finished(self) -> Path:
        """The result, whole once its manifest stands."""
        return self.folder / "finished"

    @contextmanager
    def only_writer(self) -> Iterator[None]:
        """Wait until no other process writes here: workers outlive a killed driver by a few seconds."""
        with (self.folder / "writer.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def say(self, line: str) -> None:
        with self.lines.open("a") as file:
            file.write(line + "\n")
