"""A training loop without a model: everything that a run writes down, with checkpoints, in a process that can be killed.

It opens, journals and records as the train stage and its worker do, and takes steps again after a kill as training does.
Where there is a file `hold` in its folder, it waits at two thirds of the way until the file is gone: a server takes longer to
come back than the loop takes for all its steps. At the end it prints {"blocked_s": the longest call into the tracker,
"total_s": of all of them}.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from components.runtime.recording import recorded
from components.runtime.tracking import About, Tracker
from components.training.transformer.journal import add_to, truncate_after
from components.training.transformer.run import open_training_run

CHECKPOINT_EVERY, PICTURE_EVERY, VALIDATE_EVERY = 10, 25, 20
ABOUT = About(name="a loop", params={"train.seed": 1}, params_yaml="train: {seed: 1}\n", note="It records numbers.")
LOSS, VALIDATION, PICTURE = "train/loss", "validation/loss", "samples/00-a-red-three"


def loss(step: int) -> float:
    """The same number whenever the step is taken."""
    return math.cos(step) + 10.0 / step


class Loop:
    """folder: where the run keeps what has to survive a kill."""

    def __init__(self, folder: Path, num_steps: int, step_s: float) -> None:
        self.folder, self.num_steps, self.step_s = folder, num_steps, step_s
        self.blocked_s = self.total_s = 0.0

    def run(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        latents = self.folder / "latents"
        run = open_training_run(self.folder, about=ABOUT, latents=latents, digests={"latents": "a" * 64})
        with recorded(run) as tracker:
            self.train(Tracker(run))  # of its own, as a worker has
            report = self.folder / "report.txt"
            report.write_text(f"{self.num_steps} steps")
            tracker.artifact(report, "train")

    def train(self, tracker: Tracker) -> None:
        """From the last checkpoint to the last step."""
        checkpoint, journal = self.folder / "checkpoint", self.folder / "metrics.jsonl"
        first = int(checkpoint.read_text()) if checkpoint.exists() else 0
        truncate_after(journal, first)
        picture = np.zeros((16, 16, 3), np.uint8)
        for step in range(first + 1, self.num_steps + 1):
            time.sleep(self.step_s)
            while step == self.num_steps * 2 // 3 and (self.folder.parent / "hold").exists():
                time.sleep(self.step_s)
            values = {LOSS: loss(step), "system/tokens_per_s": time.monotonic()}
            self.timed(lambda step=step, values=values: tracker.metrics(values, step, once=True))
            add_to(journal, step, values)
            if step % VALIDATE_EVERY == 0:
                self.timed(lambda step=step: tracker.metrics({VALIDATION: -loss(step)}, step, once=True))
            if step % PICTURE_EVERY == 0:
                self.timed(lambda step=step: tracker.image(picture, PICTURE, step, once=True))
            if step % CHECKPOINT_EVERY == 0:
                partial = checkpoint.with_suffix(".partial")
                partial.write_text(str(step))
                partial.replace(checkpoint)
        tracker.close()

    def timed(self, call: Callable[[], None]) -> None:
        started_s = time.monotonic()
        call()
        took_s = time.monotonic() - started_s
        self.blocked_s, self.total_s = max(self.blocked_s, took_s), self.total_s + took_s


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults.recorded_loop", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--step-s", type=float, default=0.02)
    arguments = parser.parse_args()
    loop = Loop(arguments.folder.absolute(), arguments.steps, arguments.step_s)
    loop.run()
    print(json.dumps({"blocked_s": loop.blocked_s, "total_s": loop.total_s}), flush=True)


if __name__ == "__main__":
    main()
