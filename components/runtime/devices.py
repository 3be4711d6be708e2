"""What there is to compute with, on this machine or in the cluster to join, and how many processes make use of it.

TRANSFUSION_NUM_WORKERS and TRANSFUSION_NUM_ACTORS set the numbers of processes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from components.runtime.cluster import address_to_join, cluster_resources
from core.errors import BadInput
from core.text import counted


class Devices(NamedTuple):
    """What there is to compute with."""

    num_gpus: int
    num_cores: int


def devices() -> Devices:
    """Those of the cluster that RAY_ADDRESS names, else of this machine: a driver without a GPU may train on many."""
    if not address_to_join():
        import torch

        return Devices(torch.cuda.device_count(), os.cpu_count() or 1)
    return devices_of(cluster_resources())


def devices_of(resources: Mapping[str, float]) -> Devices:
    """What a cluster says that it has."""
    return Devices(int(resources.get("GPU", 0)), max(1, int(resources.get("CPU", 0))))


def num_training_workers() -> int:
    """TRANSFUSION_NUM_WORKERS, else one a GPU, else two on a CPU with two cores or more. BadInput where GPUs are fewer.

    Measured on two cores: 5.8k tokens/s by two workers with a thread each, 5.1k by one worker with two threads.
    """
    found = devices()
    number = _number_from("TRANSFUSION_NUM_WORKERS", found.num_gpus or min(2, found.num_cores))
    if found.num_gpus and number > found.num_gpus:
        raise BadInput(
            f"TRANSFUSION_NUM_WORKERS={number} is more than the {counted(found.num_gpus, 'GPU')} there are, and each "
            "worker takes one; lower it, or unset it for one worker a GPU"
        )
    return number


def num_map_actors() -> int:
    """TRANSFUSION_NUM_ACTORS, else one a GPU, else one a core."""
    found = devices()
    return _number_from("TRANSFUSION_NUM_ACTORS", found.num_gpus or found.num_cores)


def gpu_share(num_actors: int) -> float:
    """Of a GPU, for each of so many processes; 0 where there is none."""
    return min(1.0, devices().num_gpus / num_actors)


def _number_from(variable: str, default: int) -> int:
    text = os.environ.get(variable, "")
    if not text:
        return default
    if not text.isdecimal() or int(text) < 1:
        raise BadInput(f"{variable}={text!r} must be a whole number of at least 1; unset it for the default, {default}")
    return int(text)
