"""What a cluster of this machine alone does without: services that would serve nobody, and the network."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needed_services(*, dashboard: bool, worker_logs: bool) -> Iterator[None]:
    """Inside the block `ray.init` starts no autoscaler, and no dashboard and no reader of logs that is not asked for.

    Each loads Ray, a second of a core. Without its pages the dashboard's process would only report usage, which is off, and
    `ray.init` waits until it answers.
    """
    from ray._private.node import Node

    wanted = {"start_monitor": False, "start_api_server": dashboard, "start_log_monitor": worker_logs}
    originals = {name: getattr(Node, name) for name, is_wanted in wanted.items() if not is_wanted}
    for name in originals:
        setattr(Node, name, lambda *_, **__: None)
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(Node, name, original)


def loopback_variables() -> dict[str, str]:
    """Where gloo and NCCL listen for the other workers of this machine."""
    name = "lo" if sys.platform == "linux" else "lo0"
    return {key: os.environ.get(key, name) for key in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")}
