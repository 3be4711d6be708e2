"""Whether reading goes on while a step is taken: what a step takes when reading its rows takes 80% of a step's time.

Three courses of the same steps in turn, so that whatever else the machine does falls on all: reading as it is, reading slowed
down, and the same without a thread that reads ahead, where the two times add up.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks.command import Result
from components.data.loader import PackedRows
from components.data.prefetch import Prefetch
from components.runtime.cluster import device
from components.runtime.world import World
from components.training.transformer.state import new_state
from components.training.transformer.step_batch import StepBatch
from components.training.transformer.trainer import TransformerTrainer
from pipelines import paths
from pipelines.params import load

# Of a step's own time, what reading is slowed down to.
SHARE = 0.8
NUM_WARM_UP, NUM_STEPS, NUM_ROUNDS = 3, 12, 3
NUM_QUICK_STEPS = 2


def measure(options: argparse.Namespace) -> Result:
    """`overlap_ratio`: a step's time with slow reading over its own; `in_turn_ratio`: the same where nothing is read ahead."""
    trainer = _trainer()
    num_steps, num_rounds = (NUM_QUICK_STEPS, 1) if options.quick else (NUM_STEPS, NUM_ROUNDS)
    _step_seconds(trainer, trainer.reader.step, NUM_WARM_UP, ahead=True)
    own, slow, in_turn = list[float](), list[float](), list[float]()
    for number in range(num_rounds):
        own += _step_seconds(trainer, trainer.reader.step, num_steps, ahead=True)
        read = _slowed(trainer, SHARE * median(own))
        slow += _step_seconds(trainer, read, num_steps, ahead=True)
        in_turn += _step_seconds(trainer, read, num_steps, ahead=False)
        print(
            f"round {number + 1}: own {median(own):.3f} s, slow {median(slow):.3f} s, in turn {median(in_turn):.3f} s",
            flush=True,
        )
    seconds = {"own": median(own), "slow_reading": median(slow), "slow_reading_in_turn": median(in_turn)}
    return {
        "overlap_ratio": round(seconds["slow_reading"] / seconds["own"], 4),
        "in_turn_ratio": round(seconds["slow_reading_in_turn"] / seconds["own"], 4),
        "parts": {"overlap": {"seconds_a_step": seconds, "steps": num_steps * num_rounds, "reading_share": SHARE}},
    }


def _trainer() -> TransformerTrainer:
    config, world = load(Path("params.yaml")).train, World(0, 1, device())
    rows, validation = (
        PackedRows(paths.LATENTS, split, paths.QUARANTINE / "latents.jsonl") for split in ("train", "validation")
    )
    return TransformerTrainer(config, new_state(config, rows, world), rows, validation, world)


def _slowed(trainer: TransformerTrainer, seconds: float) -> Callable[[int], StepBatch]:
    """Reading a step takes so many seconds in all."""

    def read(step: int) -> StepBatch:
        started_s = time.monotonic()
        found = trainer.reader.step(step)
        time.sleep(max(0.0, started_s + seconds - time.monotonic()))
        return found

    return read


def _step_seconds(trainer: TransformerTrainer, read: Callable[[int], StepBatch], num_steps: int, *, ahead: bool) -> list[float]:
    """Seconds of each of the first steps but the very first, whose rows nothing could be read before."""
    trainer.batches, found = Prefetch(read, trainer.max_steps), []
    if ahead:
        trainer.batches.__enter__()
    try:
        for step in range(1, num_steps + 2):
            started_s = time.monotonic()
            trainer.late_numbers.add(step, trainer.train_step(step))
            trainer.judged(step, num_kept=0)
            found.append(time.monotonic() - started_s)
    finally:
        trainer.batches.__exit__()
    return found[1:]
