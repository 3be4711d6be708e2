"""Processes that train together: Ray Train around one function, inside `cluster.start_ray`."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.runtime.allocator import keep_freed_memory
from components.runtime.cluster import private_folder
from components.runtime.devices import devices
from components.runtime.progress import LinePrinter
from components.runtime.worker_failures import Failure, Traced, failure_of
from components.runtime.world import World

if TYPE_CHECKING:
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

# Ray tries again where workers cannot be started; a try waits a minute for machines that a cluster is about to get.
MAX_FAILED_STARTS = 30


def run_workers(
    function: Callable[[dict[str, Any]], None],
    config: dict[str, Any],
    *,
    num_workers: int,
    store: Path,
    lines: Path,
    reached: Callable[[], int],
    max_failures: int = 2,
    hang: Callable[[], str] = lambda: "",
) -> None:
    """Run `function(config)` in `num_workers` processes joined by torch.distributed, and wait for them.

    lines: a file a worker appends to, which is printed here. store: the folder of what workers keep, where Ray puts its notes
    too. The function begins with `set_up_worker`.

    A worker that fails restarts all of them; reached: how far what they kept goes (the step of the newest checkpoint, say).
    After more than max_failures failures without any progress in between, WorkersFailed, or what a worker raised, is raised.
    hang: which of them hung, as a clause, where that is why they ended.
    What would only happen again (bad input, a full disk) is raised here at once, as the worker raised it.
    """
    from ray.exceptions import RayError
    from ray.train import TrainingFailedError

    trainer = _trainer(function, config, num_workers, store.absolute())
    num_failures, at = 0, reached()
    while True:
        try:
            with printed(lines):
                trainer().fit()
            return
        except (TrainingFailedError, RayError) as error:
            failure = failure_of(error)
        if (hung := hang()) and not failure.lasts:
            failure = Failure(hung, None, lasts=False)
        num_failures, at = (1, now) if (now := reached()) != at else (num_failures + 1, at)
        if failure.lasts or num_failures > max_failures:
            raise failure.to_raise(num_failures) from None
        print(f"{failure.what}; all workers start again from step {at}", flush=True)


def _trainer(
    function: Callable[[dict[str, Any]], None], config: dict[str, Any], num_workers: int, store: Path
) -> Callable[[], DataParallelTrainer]:
    """Makes Ray's trainer of one try: Ray's own count of failures would be that of the whole run."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.config import LoggingConfig

    from components.runtime.lone_trainer import InterruptibleTrainer, LoneTrainer
    from components.runtime.rendezvous import backend_config

    # Of the cluster and not of this process, which need not be where the workers are.
    use_gpu, folder = devices().num_gpus > 0, private_folder()
    return lambda: (LoneTrainer if folder else InterruptibleTrainer)(
        Traced(function),
        train_loop_config=config,
        backend_config=backend_config("nccl" if use_gpu else "gloo", folder),
        scaling_config=ScalingConfig(num_workers=num_workers, use_gpu=use_gpu),
        run_config=RunConfig(
            name=store.name,
            # Workers run in a folder of Ray's own, where a relative path would mean another place.
            storage_path=str(store.parent),
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=MAX_FAILED_STARTS),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )


def set_up_worker() -> World:
    """Make a process that `run_workers` started ready to train in; returns its place among the others.

    The workers of a machine share its cores.
    """
    import torch
    from ray import train as ray_train
    from ray.train.torch import get_device

    keep_freed_memory()
    context, device = ray_train.get_context(), get_device()
    assert isinstance(device, torch.device)
    world = World(context.get_world_rank(), context.get_world_size(), device, context.get_local_world_size())
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // world.local_size))
    torch.set_float32_matmul_precision("high")
    return world


@contextmanager
def printed(lines: Path) -> Iterator[None]:
    """Print what is appended to a file while the block runs: Ray would put a process id before every line."""
    start = lines.stat().st_size if lines.exists() else 0
    ended = threading.Event()

    def follow() -> None:
        """Print what worker 0 wrote since the last look, until the run ends."""
        at, printer = start, LinePrinter()
        while True:
            last_look = ended.wait(0.2)
            if lines.exists():
                # Ends of lines as they are: some of them say that the line passes.
                with lines.open(newline="") as file:
                    file.seek(at)
                    printer.write(file.read())
                    at = file.tell()
            if last_look:
                return printer.close()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
