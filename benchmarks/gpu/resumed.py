"""A training by the production's trainer that is killed and goes on from its checkpoint, beside one that is not.

`python -m benchmarks.gpu.resumed FOLDER 0.16b --kill-after 120` is one process of it: it goes on from the newest checkpoint of
FOLDER, and ends itself behind that step, without a word, as a kill does.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.clock import Result, this_device, wait_for
from benchmarks.gpu.production import MadeUpRows, new_trainer, train_config
from benchmarks.gpu.work import FULL, TOY, Work
from components.data.loader import PackedRows
from components.runtime.world import World
from components.training.checkpointer import Checkpointer
from components.training.run_folder import RunFolder
from components.training.transformer.config import TrainConfig
from components.training.transformer.reports import Callback, Progress
from components.training.transformer.state import TransformerState

ROOT = Path(__file__).resolve().parents[2]
# The demonstration's, where its stages have run.
LATENTS = ROOT / "data" / "latents"
# Of every so many steps both losses stay in the result.
SHOWN_EVERY = 20


def resume(work: Work, preset: str, device: torch.device) -> Iterator[Result]:
    """Losses of both trainings side by side, and what a step waits for."""
    given = work.resumed
    with tempfile.TemporaryDirectory() as parent:
        whole, killed = Path(parent) / "whole", Path(parent) / "killed"
        run(whole, preset, work)
        code = run(killed, preset, work, kill_after=given.kill_after, check=False)
        resumed_from = RunFolder(folder=killed).newest_step()
        run(killed, preset, work)
        one, other = losses_of(whole), losses_of(killed)
        waits = json.loads((whole / "waits.json").read_text())
    apart = [abs(one[step] - other[step]) for step in one]
    yield {
        "steps": len(one),
        "killed_with_code": code,
        "resumed_from": resumed_from,
        "steps_that_differ": sum(each != 0 for each in apart),
        "largest_difference": max(apart),
        "losses": {step: [one[step], other[step]] for step in one if step % SHOWN_EVERY == 0},
    }
    yield {"waits_in_a_step": waits}


def run(folder: Path, preset: str, work: Work, *, kill_after: int = 0, check: bool = True) -> int:
    """A process of the training; its exit code."""
    folder.mkdir(exist_ok=True)
    toy = ["--toy"] if work is TOY else []
    command = [sys.executable, "-m", "benchmarks.gpu.resumed", str(folder), preset, "--kill-after", str(kill_after), *toy]
    return subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=check).returncode


def losses_of(folder: Path) -> dict[int, float]:
    """Of every step; those of a step that was taken twice are the later ones."""
    return dict(map(json.loads, (folder / "losses.jsonl").read_text().splitlines()))


class Recorder(Callback):
    """Checkpoints and every step's loss, until it is time to be killed."""

    def __init__(self, folder: Path, checkpointer: Checkpointer, kill_after: int) -> None:
        self.folder, self.checkpointer, self.kill_after = folder, checkpointer, kill_after

    def log(self, progress: Progress) -> None:
        """A line a step."""
        with (self.folder / "losses.jsonl").open("a") as file:
            file.write(json.dumps([progress.step, progress.losses.total]) + "\n")
        if progress.step == self.kill_after:
            # What is measured is how it goes on, so that there is to be something to go on from.
            self.checkpointer.wait()
            os.kill(os.getpid(), signal.SIGKILL)

    def checkpoint(self, step: int, state: TransformerState) -> None:
        """Keep it."""
        self.checkpointer.save(step)


def train(folder: Path, preset: str, work: Work, kill_after: int, device: torch.device) -> None:
    """From the newest checkpoint to the last step."""
    config, rows, validation = given_work(work, preset)
    trainer = new_trainer(config, rows, validation, device, compiler=work.compiler)
    with RunFolder(folder=folder).resumed(trainer.state, World(0, 1, device)) as checkpointer:
        recorder = Recorder(folder, checkpointer, kill_after)
        trainer.run(trainer.schedule(recorder), first_step=checkpointer.first_step)
    (folder / "waits.json").write_text(json.dumps(waits_of_a_step(trainer, config.max_steps + 1, device)))


def given_work(work: Work, preset: str) -> tuple[TrainConfig, PackedRows, PackedRows]:
    """The demonstration's latents, where they are; made-up rows elsewhere."""
    given = work.resumed
    config = train_config(
        preset, batch_rows=given.batch_rows, max_steps=given.steps, report_every_steps=1, hidden_states="float32"
    )
    config = replace(config, checkpoint_every_steps=given.checkpoint_every)
    if work is TOY or not LATENTS.exists():
        rows = MadeUpRows(work, given.batch_rows)
        return config, rows, rows
    rows, validation = (PackedRows(LATENTS, split, None) for split in ("train", "validation"))
    return replace(config, model=replace(config.model, patch_side=rows.patch_side)), rows, validation  # type: ignore[arg-type]


def waits_of_a_step(trainer: Any, step: int, device: torch.device) -> list[str] | None:
    """What torch says of each operation of a step that makes the CPU wait for the GPU; None on a CPU."""
    if device.type != "cuda":
        return None
    wait_for(device)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        trainer.train_step(step)
        torch.cuda.set_sync_debug_mode("default")
    return [f"{each.filename}:{each.lineno}: {str(each.message).splitlines()[0]}" for each in said]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.resumed", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("preset")
    parser.add_argument("--kill-after", type=int, default=0)
    parser.add_argument("--toy", action="store_true")
    arguments = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    device = torch.device("cpu") if arguments.toy else this_device()
    train(arguments.folder, arguments.preset, TOY if arguments.toy else FULL, arguments.kill_after, device)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
