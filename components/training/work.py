"""What is a process that trains the transformer told? One record of settings and absolute paths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from components.runtime.tracking import RunIdentity
from components.training.config import TrainConfig
from components.training.run_folder import RunFolder

# The kind of the result's manifest.
FINISHED = "finished"


@dataclass(frozen=True, kw_only=True)
class Work(RunFolder):
    """All paths are absolute, because a worker's working directory is Ray's.

    quarantine: the documents to leave out, or None.
    """

    config: TrainConfig
    run: RunIdentity
    latents: Path
    quarantine: Path | None
    tokenizer: Path
    autoencoder: Path

    @property
    def journal(self) -> Path:
        """Every reported number, a JSON line a report."""
        return self.folder / "metrics.jsonl"

    @property
    def samples(self) -> Path:
        """The last pictures drawn."""
        return self.folder / "samples.png"
