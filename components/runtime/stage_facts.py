"""How a stage ran: its wall time, the machine, the libraries' versions and the commit, noted beside the reports.

A note is no output of DVC's: it differs between runs that are otherwise equal, and nothing must run again for it.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from core.files import write_json

PACKAGES = ("torch", "ray", "mlflow", "dvc", "onnxruntime", "onnxruntime-gpu", "tensorrt")
GIB = 2**30


def note_stage(path: Path, seconds: float, code: Mapping[str, Any]) -> None:
    """Write the note of a stage that ended well just now, in place of its last one. code: `code_state` as the stage began.

    Where the disk does not take it there is none: no reason to lose a stage's work.
    """
    facts = {
        "seconds": round(seconds, 1),
        "ended": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine(),
        "versions": versions(),
        "code": dict(code),
    }
    with suppress(OSError):
        write_json(path, facts)


def machine() -> dict[str, Any]:
    """What of this machine decides speed and rounding; nothing that names it or its owner."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": processor(),
        "cores": usable,
        "memory_gib": round(psutil.virtual_memory().total / GIB, 1),
        "gpus": gpus(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def processor(facts: Path = Path("/proc/cpuinfo")) -> str:
    """Its name as the system gives it."""
    with suppress(OSError):
        for line in facts.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def gpus() -> list[str]:
    """Their names by NVIDIA's management library, which starts nothing on them; none where it is not."""
    found: list[str] = []
    # What the library cannot tell it raises as a plain Exception of its own.
    with suppress(Exception):
        import pynvml

        pynvml.nvmlInit()
        handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        found += [str(pynvml.nvmlDeviceGetName(handle)) for handle in handles]
    return found


def versions() -> dict[str, str]:
    """Of Python, and of the installed libraries that results depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
