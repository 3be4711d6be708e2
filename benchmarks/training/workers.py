"""The same steps by 1, 2 and 4 workers on CPUs, weights whole or in shards: how far losses are apart, and what a worker keeps.

python -m benchmarks.training.workers             # some minutes; kept in results/training.json

Needs the stages before `train` (`dvc repro encode validate`). Every number of workers is one group of processes that takes all
cases that are compared, of a tiny model in float32. Memory is of the demonstration's model, in processes of their own.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
import torch.distributed
import torch.multiprocessing
from torch import Tensor

from benchmarks import machine
from benchmarks.command import Result, keep
from components.data.loader import PackedRows
from components.runtime.world import World
from components.training.parallel import Parallel, local_bytes
from components.training.transformer.config import ActivationCheckpointing, TrainConfig
from components.training.transformer.state import TransformerState, new_state
from components.training.transformer.trainer import Callback, Progress, TransformerTrainer
from core.files import read_json, write_json
from core.text import counted
from pipelines import paths
from pipelines.params import load

OUT = Path(__file__).resolve().parents[1] / "results" / "training.json"
NUM_STEPS, NUM_QUICK_STEPS, NUM_MEMORY_STEPS = 10, 3, 2
SIZES = (1, 2, 4)
BATCH_ROWS = 8
SETTINGS = (
    *("train.model.preset=tiny", f"train.batch_rows={BATCH_ROWS}", "train.max_steps=1000", "train.log_every_steps=1"),
    *("train.precision=float32", "train.compile=off", "train.validate_every_steps=1000"),
)


class Case(NamedTuple):
    """One way to take the steps."""

    parallel: Parallel
    micro_batch_rows: int
    activation_checkpointing: ActivationCheckpointing
    preset: str = "tiny"

    @property
    def name(self) -> str:
        """As it stands in the results."""
        passes = f"{self.micro_batch_rows} rows a pass" if self.micro_batch_rows else "one pass"
        return f"{self.parallel}, {passes}, recomputed: {self.activation_checkpointing}, {self.preset}"


PLAIN = Case("ddp", 0, "none")


class Course(Callback):
    """Every step's figures."""

    def __init__(self) -> None:
        self.steps: list[list[float]] = []

    def log(self, progress: Progress) -> None:
        """Note the step."""
        losses = progress.losses
        self.steps.append([losses.total, losses.text, losses.image, progress.gradient_norm])


def main(arguments: Sequence[str]) -> int:
    """Measure, print and keep the figures."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.training.workers", description=(__doc__ or "").split("\n")[0])
    made.add_argument("--quick", action="store_true", help="three steps, and at most two workers")
    made.add_argument("--out", type=Path, default=OUT)
    options = made.parse_args(arguments)
    found = measured(is_quick=options.quick)
    keep({"workers": {**found, "machine": machine.describe(1)}}, options.out, lambda old, new: {**old, **new})
    print(json.dumps(found), flush=True)
    return 0


def measured(*, is_quick: bool) -> Result:
    """By number of workers and case, how far a step's figures are from one worker's, and what a worker keeps."""
    sizes, num_steps = (SIZES[:2], NUM_QUICK_STEPS) if is_quick else (SIZES, NUM_STEPS)
    reference = taken(1, [PLAIN], num_steps)[PLAIN.name]["steps"]
    apart, memory = dict[str, dict[str, dict[str, float]]](), dict[str, dict[str, Any]]()
    for size in sizes:
        found = taken(size, cases_of(size), num_steps)
        apart[str(size)] = {name: distances(case["steps"], reference) for name, case in found.items()}
        memory[str(size)] = {layout: memory_of(layout, size) for layout in layouts_of(size)}
    every = [each for cases in apart.values() for each in cases.values()]
    largest = {figure: max(each[figure] for each in every) for figure in every[0]}
    return {"largest_distance": largest, "steps": num_steps, "distance": apart, "memory": memory}


def layouts_of(size: int) -> list[Parallel]:
    """Of so many workers; one has everything whole."""
    return ["ddp"] if size == 1 else ["ddp", "fsdp"]


def cases_of(size: int) -> list[Case]:
    """Those that are compared."""
    layouts, kinds = layouts_of(size), list[ActivationCheckpointing](("none", "full"))
    cases = [Case(*each) for each in itertools.product(layouts, (0, 1), kinds)]
    cases.append(Case(layouts[-1], 0, "selective"))
    return [*cases, Case("hsdp", 1, "none")] if size == 4 else cases


def memory_of(layout: Parallel, size: int) -> dict[str, int]:
    """Of the demonstration's model, on worker 0."""
    # Processes of its own, for one that had more before gives its memory to what comes next; and a small model first, which
    # loads all code that the large one needs.
    case = Case(layout, 1, "full", "demo")
    return taken(size, [case._replace(preset="tiny"), case], NUM_MEMORY_STEPS)[case.name]["memory"]


def distances(steps: list[list[float]], reference: list[list[float]]) -> dict[str, float]:
    """The largest, relative, between figures of one course and the same of another: of losses, and of the gradient's norm."""
    apart = [
        [abs(a - b) / abs(b) for a, b in zip(one, other, strict=True)] for one, other in zip(steps, reference, strict=True)
    ]
    return {"losses": max(max(each[:-1]) for each in apart), "gradient_norm": max(each[-1] for each in apart)}


def taken(size: int, cases: list[Case], num_steps: int) -> dict[str, Any]:
    """By the cases' names, what worker 0 found."""
    with tempfile.TemporaryDirectory() as folder:
        given = (size, cases, num_steps, Path(folder))
        torch.multiprocessing.start_processes(_worker, given, nprocs=size, start_method="spawn")
        return read_json(Path(folder) / "found.json")


def _worker(rank: int, size: int, cases: list[Case], num_steps: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    # As if they were on two machines, where there are four.
    world = World(rank, size, torch.device("cpu"), local_size=min(2, size))
    found = {}
    for case in cases:
        found[case.name] = one(case, world, num_steps)
        if rank == 0:
            print(f"{counted(size, 'worker')} | {case.name}", flush=True)
    torch.distributed.destroy_process_group()
    if rank == 0:
        write_json(folder / "found.json", found)


def one(case: Case, world: World, num_steps: int) -> dict[str, Any]:
    """Take the steps of a case."""
    config = config_of(case, num_steps)
    rows, validation = (
        PackedRows(paths.LATENTS, split, paths.QUARANTINE / "latents.jsonl") for split in ("train", "validation")
    )
    gc.collect()
    before = psutil.Process().memory_info().rss
    state, course = new_state(config, rows, world), Course()
    trainer = TransformerTrainer(config, state, rows, validation, world)
    # Losses alone: what is due beside them would be measured with them.
    trainer.run([each for each in trainer.schedule(course) if each.num_steps == 1], first_step=1)
    gc.collect()
    memory = {"kept_bytes": kept_bytes(state), "resident_bytes": psutil.Process().memory_info().rss - before}
    return {"steps": course.steps, "memory": memory}


def config_of(case: Case, num_steps: int) -> TrainConfig:
    """params.yaml's, made small."""
    config = load(Path("params.yaml"), [*SETTINGS, f"train.model.preset={case.preset}"]).train
    return replace(
        config,
        max_steps=num_steps,
        warmup_steps=1,
        sample_every_steps=10**6,
        checkpoint_every_steps=10**6,
        validate_every_steps=10**6,
        parallel=case.parallel,
        micro_batch_rows=case.micro_batch_rows,
        activation_checkpointing=case.activation_checkpointing,
    )


def kept_bytes(state: TransformerState) -> int:
    """Of weights, their average and the optimisers' moments on this worker."""
    moments: list[Tensor] = [
        each
        for optimiser in state.optimisers
        for values in optimiser.state.values()
        for each in values.values()
        if isinstance(each, Tensor)
    ]
    return local_bytes([*state.model.parameters(), *state.ema_model.parameters(), *moments])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
