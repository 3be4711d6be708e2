"""What both sides count and set alike: the command line, the precision, and the evaluations of an image.

Read by both environments, so it needs torch and the standard library alone.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.peer.work import FULL, QUICK, Precision, Work


def work_of_command_line(description: str | None) -> Work:
    """What this process is to do: both sides are started with --threads, which is set here, and --quick for the toy."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    return QUICK if arguments.quick else FULL


def autocast(precision: Precision) -> torch.autocast:
    """The context of forward passes; weights stay in float32 on both sides."""
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")


@contextlib.contextmanager
def evaluated_rows(transformer: torch.nn.Module, block: int) -> Iterator[list[int]]:
    """Collects the number of rows [rows, block, D] of every pass over `block` positions: the evaluations of images."""
    rows: list[int] = []

    def hook(_: torch.nn.Module, given: tuple[Any, ...]) -> None:
        if given[0].shape[1] == block:
            rows.append(given[0].shape[0])

    handle = transformer.register_forward_pre_hook(hook)
    try:
        yield rows
    finally:
        handle.remove()
