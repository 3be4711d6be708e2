"""A run of the transformer's training: its files, the digests that name it, and its MLflow run, new or reopened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from components.data.quarantine import read_keys
from components.runtime.code_digest import code_digest
from components.runtime.recording import open_run
from components.runtime.tracking import About, RunIdentity, Tracker
from components.training.run_folder import RunFolder
from components.training.transformer.config import TrainConfig
from components.training.transformer.journal import shown_names
from components.training.transformer.pretrained_files import PRETRAINED, pretrained_digest
from core.errors import BadInput
from core.files import digest, read_fields, read_json_lines, sha256, write_json
from core.manifest import MANIFEST

# What decides the weights; what is logged, drawn and kept beside them stands elsewhere.
CODE = "components.training.transformer.trainer"

# How the work is shared, watched and reported, which changes no weight by more than a rounding: a run goes on under another
# choice. Messages ask for some of these to be changed, and what was trained must not be lost by doing as they say.
WITHOUT_EFFECT = (
    *("parallel", "activation_checkpointing", "micro_batch_rows"),
    *("step_timeout_s", "checkpoint_every_steps", "log_every_steps", "sample_every_steps"),
)

# The kind of the manifest of a finished run.
FINISHED = "finished"


@dataclass(frozen=True, kw_only=True)
class TransformerRun(RunFolder):
    """What a process that trains the transformer is told. Paths are absolute: a worker's working directory is Ray's."""

    config: TrainConfig
    identity: RunIdentity
    """The MLflow run."""
    latents: Path
    quarantine: Path | None
    """The documents to leave out, or None."""
    tokenizer: Path
    autoencoder: Path
    start: Path | None = None
    """The folder of the weights that it begins with; None: those of the seed."""

    @property
    def journal(self) -> Path:
        """Every reported number, a JSON line a report."""
        return self.folder / "metrics.jsonl"

    @property
    def samples(self) -> Path:
        """The folder of the sheets of generated images, each named for its step (`sheet_name`)."""
        return self.folder / "samples"


def digests_of(config: TrainConfig, latents: Path, quarantine: Path, start: Path | None = None) -> dict[str, str]:
    """Of all that decides what is learnt: a checkpoint is resumed from only where all of them are the same.

    start: the folder of the weights that it begins with.
    """
    began_with = {} if start is None else {PRETRAINED: pretrained_digest(start)}
    return began_with | {
        "config": digest({name: value for name, value in asdict(config).items() if name not in WITHOUT_EFFECT}),
        "latents": sha256(latents / MANIFEST),
        "quarantine": digest(sorted(read_keys(quarantine))),
        "code": code_digest(CODE),
    }


def open_training_run(folder: Path, *, about: About, latents: Path, digests: Mapping[str, str]) -> RunIdentity:
    """The MLflow run that `folder` began with, or a new one that gets its parameters, lineage and description."""
    known = folder / "run.json"
    run_id = _noted(known) if known.exists() else ""
    run = open_run(about.name, run_id=run_id, tags={"mlflow.note.content": about.note})
    if run.run_id != run_id:
        _begin(Tracker(run), folder, about=about, latents=latents, digest=digests["latents"])
        write_json(known, run.facts())
    short = ", ".join(f"{name} {value[:12]}" for name, value in digests.items())
    print(f"train: run {run.run_id} in {run.tracking_uri} ({short})", flush=True)
    return run


def _noted(note: Path) -> str:
    """The run's id; BadInput where the note is none."""
    run_id = read_fields(note, "run_id")["run_id"]
    if not isinstance(run_id, str) or not run_id:
        raise BadInput(f"{note} does not say which run this training belongs to; delete it, and a new run is opened")
    return run_id


def _begin(tracker: Tracker, folder: Path, *, about: About, latents: Path, digest: str) -> None:
    """What a new run is told first: also the course so far, where it takes the place of one that the store lost."""
    tracker.params(about.params)
    tracker.text(about.params_yaml, "params.yaml")
    tracker.dataset("latents", digest=digest, source=latents, context="training")
    for entry in read_json_lines(folder / "metrics.jsonl"):
        tracker.metrics(shown_names(entry), int(entry["step"]), once=True, time_ms=int(entry["time_ms"]))
    tracker.close()
