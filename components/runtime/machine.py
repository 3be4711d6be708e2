"""How busy the machine is: processor, memory and GPU, by the names that MLflow's pages show among the system's metrics."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress

import psutil
import torch

MIB = 2**20


def utilisation(device: torch.device) -> dict[str, float]:
    """Percentages (0..100) since the last call, and MiB. The first call of a process has no processor's percentage.

    Peaks are of this process: of its resident memory since it began, of a GPU's tensors since the last call.
    """
    memory, peak = psutil.virtual_memory(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    figures = {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_megabytes": (memory.total - memory.available) / MIB,
        "system/system_memory_usage_percentage": memory.percent,
        # Linux counts in KiB, and macOS in bytes.
        "system/peak_process_memory_megabytes": peak / (MIB if sys.platform == "darwin" else 1024),
    }
    return figures | _gpu(device) if device.type == "cuda" else figures


def _gpu(device: torch.device) -> dict[str, float]:
    name = f"system/gpu_{torch.cuda.current_device() if device.index is None else device.index}"
    figures = dict[str, float]()
    # NVIDIA's management library is not everywhere, and what it cannot tell (not supported, no permission) it raises as a plain
    # Exception of its own. A figure that is missing is no reason to end a training.
    with suppress(Exception):
        free, total = torch.cuda.mem_get_info(device)
        figures[f"{name}_memory_usage_megabytes"] = (total - free) / MIB
    with suppress(Exception):
        figures[f"{name}_peak_tensor_memory_megabytes"] = torch.cuda.max_memory_allocated(device) / MIB
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(Exception):
        figures[f"{name}_utilization_percentage"] = float(torch.cuda.utilization(device))
    return figures
