"""The machine, and how fast it multiplies matrices: a figure means nothing without either.

Legend: m x k times k x n.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

# What decides how fast bfloat16 is on a CPU.
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16")


def describe(num_threads: int) -> dict[str, Any]:
    """The machine as far as a timing depends on it."""
    lines = _cpuinfo()
    present = lines.get("flags", "").split()
    return {
        "cpu": lines.get("model name", platform.processor() or platform.machine()),
        "cores": num_cores(),
        "flags": {flag: flag in present for flag in FLAGS},
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "torch": version("torch"),
        "threads": num_threads,
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "unset"),
    }


def num_cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpuinfo() -> dict[str, str]:
    """The first processor's entries; empty where the system does not list them."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text().split("\n\n")[0].splitlines()
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first)}


def matmul_rate(m: int, k: int, n: int, dtype: torch.dtype, *, seconds: float) -> float:
    """FLOP/s of one matrix product as a linear layer makes it ([m, k] times the transpose of [n, k]), the median of many."""
    x, weight = torch.randn(m, k).to(dtype), torch.randn(n, k).to(dtype)
    times: list[float] = []
    with torch.inference_mode():
        for _ in range(3):
            torch.nn.functional.linear(x, weight)
        end = time.perf_counter() + seconds
        while len(times) < 5 or time.perf_counter() < end:
            start = time.perf_counter()
            torch.nn.functional.linear(x, weight)
            times.append(time.perf_counter() - start)
    return 2.0 * m * k * n / statistics.median(times)
