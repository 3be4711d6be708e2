"""What is a training process told, and where does the unfinished run lie? One record of settings and absolute paths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from components.runtime.failure import BadInput
from components.runtime.files import digest, read_manifest, sha256
from components.runtime.tracking import RunIdentity
from components.training.config import TrainConfig

CODE = (
    "model/*.py",
    "components/training/*.py",
    "components/data/loader.py",
    "components/data/packing.py",
    "components/data/shards.py",
)


@dataclass(frozen=True, kw_only=True)
class Work:
    """All paths are absolute, because a worker's working directory is Ray's.

    quarantine: the documents to leave out, or None. folder: what survives a kill. store: the checkpoints in it.
    """

    config: TrainConfig
    run: RunIdentity
    latents: Path
    quarantine: Path | None
    tokenizer: Path
    autoencoder: Path
    folder: Path
    store: Path

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

    def say(self, line: str) -> None:
        with self.lines.open("a") as file:
            file.write(line + "\n")


def is_finished(work: Work) -> bool:
    """Whether a killed run had come so far that only publishing is left."""
    try:
        read_manifest(work.finished, kind="finished")
    except BadInput:
        return False
    return True


def code_digest() -> str:
    """A digest of the code that decides what is learnt: a checkpoint of other code must not be gone on from."""
    root = Path(__file__).resolve().parents[2]
    return digest(
        {str(path.relative_to(root)): sha256(path) for pattern in CODE for path in sorted(root.glob(pattern))}
    )
