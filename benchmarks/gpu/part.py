"""One part of the GPU benchmark in a process of its own, so that what fails or fills the memory stays in it.

`python -m benchmarks.gpu.part train 0.16b` prints a JSON object a line as figures come; benchmarks/gpu puts them together.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator

import torch

from benchmarks.gpu.clock import Result, describe, matmul_rate, this_device
from benchmarks.gpu.parity import parity
from benchmarks.gpu.peer import peer
from benchmarks.gpu.resumed import resume
from benchmarks.gpu.sampling import sampling
from benchmarks.gpu.train import train
from benchmarks.gpu.work import FULL, TOY, Work


def machine(work: Work, preset: str, device: torch.device) -> Iterator[Result]:
    """The card, and the rate that its matrix products reach."""
    yield describe(device)
    yield {"matmul_flops_per_second": matmul_rate(device, work.matmul_side)}


PARTS: dict[str, Callable[[Work, str, torch.device], Iterator[Result]]] = {
    "machine": machine,
    "train": train,
    "peer": peer,
    "sampling": sampling,
    "parity": parity,
    "resume": resume,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.part", description=__doc__)
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("preset")
    parser.add_argument("--toy", action="store_true")
    arguments = parser.parse_args()
    work = TOY if arguments.toy else FULL
    device = torch.device("cpu") if arguments.toy else this_device()
    # Libraries print what they like; the results have the real stdout to themselves.
    with os.fdopen(os.dup(1), "w") as results:
        os.dup2(2, 1)
        for found in PARTS[arguments.part](work, arguments.preset, device):
            print(json.dumps(found), file=results, flush=True)
            print(f"{arguments.part} {arguments.preset}: {', '.join(found)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
