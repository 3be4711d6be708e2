"""The run that a training belongs to: its MLflow run, begun or gone on with, and its code's digest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from components.data.quarantine import read_keys
from components.runtime.recording import open_run
from components.runtime.tracking import RunIdentity, Tracker
from components.training.config import TrainConfig
from core.files import digest, read_json, read_json_lines, sha256, write_json
from core.manifest import MANIFEST

ROOT = Path(__file__).resolve().parents[2]
# The code that decides what is learnt: checkpoints of other code must not be gone on from.
CODE = (
    "model/**/*.py",
    "components/runtime/workers.py",
    "components/training/checkpoints.py",
    "components/training/config.py",
    "components/training/loop.py",
    "components/training/optimiser.py",
    "components/training/precision.py",
    "components/training/run_folder.py",
    "components/training/worker.py",
    "components/data/loader.py",
    "core/random.py",
    "components/data/row_layout.py",
    "components/data/encode/packing.py",
    "components/data/shards.py",
)


def digests_of(config: TrainConfig, latents: Path, quarantine: Path) -> dict[str, str]:
    """Of all that decides what is learnt: a checkpoint is resumed from only where all of them are the same."""
    return {
        "config": digest(asdict(config)),
        "latents": sha256(latents / MANIFEST),
        "quarantine": digest(sorted(read_keys(quarantine))),
        "code": code_digest(),
    }


def code_digest() -> str:
    """Hex digest of the files that CODE names."""
    return digest({str(path.relative_to(ROOT)): sha256(path) for pattern in CODE for path in sorted(ROOT.glob(pattern))})


def open_training_run(folder: Path, *, params: Mapping[str, Any], latents: Path, digests: Mapping[str, str]) -> RunIdentity:
    """The MLflow run that `folder` began with, or a new one that gets the parameters, the lineage and the digests."""
    known = folder / "run.json"
    run_id = read_json(known)["run_id"] if known.exists() else ""
    note = "One trained model: `train` opened this run; `evaluate`, `export` and `register` add to it."
    tags = {f"{name}.digest": value for name, value in digests.items()} | {"mlflow.note.content": note}
    run = open_run("train", run_id=run_id, tags=tags)
    if run.run_id != run_id:
        _begin(Tracker(run), folder, params=params, latents=latents, digest=digests["latents"])
        write_json(known, run.facts())
    short = ", ".join(f"{name} {value[:12]}" for name, value in digests.items())
    print(f"train: run {run.run_id} in {run.tracking_uri} ({short})", flush=True)
    return run


def _begin(tracker: Tracker, folder: Path, *, params: Mapping[str, Any], latents: Path, digest: str) -> None:
    """What a new run is told first: also the course so far, where it takes the place of one that the store lost."""
    tracker.params(params)
    tracker.dataset("latents", digest=digest, source=latents, context="training")
    for entry in read_json_lines(folder / "metrics.jsonl"):
        values = {name: value for name, value in entry.items() if "/" in name}
        tracker.metrics(values, int(entry["step"]), once=True, time_ms=int(entry["time_ms"]))
    tracker.close()
