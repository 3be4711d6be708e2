"""How long a checkpoint holds training up: written while training goes on, against written while it waits.

python -m benchmarks.training.checkpoints         # less than a minute; kept in results/training.json
"""

from __future__ import annotations

import copy
import hashlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import machine
from benchmarks.command import Result, keep
from components.runtime.world import World
from components.training.checkpointer import Checkpointer
from components.training.checkpoints import Trained, tensors_of

OUT = Path("benchmarks/results/training.json")
# Weights, their average and two moments of 12.6 million parameters in float32: 201 MB.
WIDTH, NUM_LAYERS, ROUNDS = 1024, 12, 5


class State:
    """A training's, with moments as after a step."""

    def __init__(self) -> None:
        self.model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(NUM_LAYERS)))
        self.ema_model = copy.deepcopy(self.model)
        self.optimiser = torch.optim.AdamW(self.model.parameters(), fused=True)
        for parameter in self.model.parameters():
            parameter.grad = torch.randn_like(parameter)
        self.optimiser.step()

    def networks(self) -> dict[str, Trained]:
        """Of a checkpoint."""
        return {"model": Trained(self.model, [self.optimiser]), "ema_model": Trained(self.ema_model)}

    def others(self) -> dict[str, Tensor]:
        """None."""
        return {}


def measured(folder: Path) -> Result:
    """Medians of rounds that take turns; ratios of them."""
    state, waiting, going_on, hashing = State(), list[float](), list[float](), list[float]()
    buffers = [tensor.detach().reshape(-1).numpy().data for tensor in tensors_of(state).values()]
    with Checkpointer(folder / "run", state, World(0, 1, torch.device("cpu")), print) as checkpointer:
        # The first one makes the buffers that the others use.
        for number in range(ROUNDS + 1):
            waiting.append(seconds(lambda number=number: (checkpointer.save(2 * number), checkpointer.wait())))
            going_on.append(seconds(lambda number=number: checkpointer.save(2 * number + 1)))
            checkpointer.wait()
            hashing.append(seconds(lambda: [hashlib.sha256(buffer) for buffer in buffers]))
    blocked, whole, hashed = (statistics.median(times[1:]) for times in (going_on, waiting, hashing))
    return {
        "checkpoint_mb": round(sum(buffer.nbytes for buffer in buffers) / 1e6),
        "checkpoint_seconds": whole,
        "checkpoint_seconds_blocked": blocked,
        "checkpoint_block_ratio": whole / blocked,
        "checkpoint_hashing_share": hashed / whole,
        "checkpoint_machine": machine.describe(torch.get_num_threads()),
    }


def seconds(work: Callable[[], object]) -> float:
    """What it takes."""
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> Result:
    """Beside what other parts measured."""
    return {**old, **new}


def main(arguments: Sequence[str]) -> int:
    """arguments: where the folder of the checkpoints is made, the system's temporary folder by default."""
    # Of a copy that two threads make, a busy machine shows how long one waits for the other.
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=arguments[0] if arguments else None) as folder:
        found = measured(Path(folder))
    keep(found, OUT, merged)
    print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
