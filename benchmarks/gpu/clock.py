"""The card, how long something takes on it, and how fast it multiplies matrices."""

from __future__ import annotations

import itertools
import shutil
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch

Result = dict[str, Any]


def this_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wait_for(device: torch.device) -> None:
    """Until the device has done what it was given; a CPU has at once."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of_each(run: Callable[[int], object], repeats: int, device: torch.device) -> list[float]:
    """How long run(0), run(1), ... take on the device, one right after the other; the caller has warmed up.

    On a GPU by events between them, so that the CPU runs ahead as it does in use; their sum is the time of all.
    """
    if device.type != "cuda":
        marks = [time.perf_counter()]
        for number in range(repeats):
            run(number)
            marks.append(time.perf_counter())
        return [end - start for start, end in itertools.pairwise(marks)]
    wait_for(device)
    events = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    events[0].record()
    for number in range(repeats):
        run(number)
        events[number + 1].record()
    wait_for(device)
    return [start.elapsed_time(end) / 1000 for start, end in itertools.pairwise(events)]


def attempt(measure: Callable[[], Result]) -> Result:
    """What `measure` gives, or {"error": ...}: one figure that fails is not to cost the others."""
    try:
        return measure()
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        return {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:500]}


def describe(device: torch.device) -> Result:
    """The card and the versions that a timing depends on."""
    about: Result = {"card": "CPU", "torch": torch.__version__, "cuda": torch.version.cuda, "driver": None}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        about |= {
            "card": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "multiprocessors": properties.multi_processor_count,
            **_from_driver(),
        }
    return about


def _from_driver() -> Result:
    """The driver's version and the card's limits, as nvidia-smi tells them; nothing where there is none."""
    fields = {"driver": "driver_version", "power_limit_w": "power.limit", "max_clock_mhz": "clocks.max.sm"}
    tool = shutil.which("nvidia-smi")
    if not tool:
        return {}
    asked = [tool, f"--query-gpu={','.join(fields.values())}", "--format=csv,noheader,nounits"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    values = [value.strip() for value in lines[0].split(",")] if done.returncode == 0 and lines else []
    return dict(zip(fields, values, strict=True)) if len(values) == len(fields) else {}


def matmul_rate(device: torch.device, side: int) -> float:
    """FLOP/s of a bfloat16 product of squares, the median of 20."""
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    with torch.inference_mode():
        seconds_of_each(lambda _: left @ right, 10, device)
        return 2.0 * side**3 / statistics.median(seconds_of_each(lambda _: left @ right, 20, device))
