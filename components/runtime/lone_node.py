"""Ray's node on a cluster of this machine alone, without the services that would serve nobody."""

from __future__ import annotations

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
