"""How do several processes train together? Ray Train around one function, inside `cluster.start_ray`."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from components.runtime.allocator import keep_freed_memory
from components.runtime.cluster import private_folder
from components.runtime.failure import BadInput

if TYPE_CHECKING:
    import torch

# (step, the checkpoint's folder; None from a worker that did not write it); every worker calls it after every checkpoint.
Report = Callable[[int, Path | None], None]


class World(NamedTuple):
    """This process among `size` that train together, and where its tensors live."""

    rank: int
    size: int
    device: torch.device


def run_workers(
    function: Callable[[dict[str, Any]], None],
    config: dict[str, Any],
    *,
    num_workers: int,
    storage_path: Path,
    run_name: str,
    lines: Path,
    max_failures: int = 2,
) -> None:
    """Run `function(config)` in `num_workers` processes joined by torch.distributed, and wait for them.

    config gains "num_threads", the torch threads a worker may use. lines: a file a worker appends to, which is printed
    here. A killed worker restarts all of them, max_failures times; storage_path and run_name are where they find what
    they kept. A BadInput in a worker is raised here as it is, without another try. The function begins with `join_workers`.
    """
    import torch
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.config import LoggingConfig

    from components.runtime.rendezvous import torch_config

    use_gpu = torch.cuda.is_available()
    refusal = storage_path.absolute() / f"{run_name}-refused.txt"
    refusal.unlink(missing_ok=True)
    trainer = TorchTrainer(
        _Guarded(function, refusal),
        train_loop_config=config | {"num_threads": max(1, (os.cpu_count() or 1) // num_workers)},
        torch_config=torch_config("nccl" if use_gpu else "gloo", private_folder()),
        scaling_config=ScalingConfig(num_workers=num_workers, use_gpu=use_gpu),
        run_config=RunConfig(
            name=run_name,
            # Workers run in a folder of Ray's own, where a relative path would mean another place.
            storage_path=str(storage_path.absolute()),
            failure_config=FailureConfig(max_failures=max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )
    try:
        with _printed(lines):
            trainer.fit()
    finally:
        if refusal.exists():
            raise BadInput(refusal.read_text()) from None


def join_workers(num_threads: int) -> World:
    """Make a process that `run_workers` started ready to train in; returns its place among the others.

    num_threads: the torch threads it may use.
    """
    import torch
    from ray import train as ray_train
    from ray.train.torch import get_device

    keep_freed_memory()
    torch.set_num_threads(num_threads)
    torch.set_float32_matmul_precision("high")
    context, device = ray_train.get_context(), get_device()
    assert isinstance(device, torch.device)
    return World(context.get_world_rank(), context.get_world_size(), device)


def tell_ray(step: int, folder: Path | None) -> None:
    """The Report to Ray Train, of a checkpoint that stands in its store already."""
    from ray import train as ray_train

    checkpoint = ray_train.Checkpoint.from_directory(str(folder)) if folder else None
    mode = ray_train.CheckpointUploadMode.NO_UPLOAD
    ray_train.report({"step": step}, checkpoint=checkpoint, checkpoint_upload_mode=mode)


class _Guarded:
    """A worker's function whose BadInput ends the run at once: Ray would take it for a failure and start again."""

    def __init__(self, function: Callable[[dict[str, Any]], None], refusal: Path) -> None:
        self.function, self.refusal = function, refusal

    def __call__(self, config: dict[str, Any]) -> None:
        if self.refusal.exists():  # the others of the refusing worker failed in its wake, and Ray started all again
            return
        try:
            self.function(config)
        except BadInput as error:
            self.refusal.write_text(str(error))
            self._leave()

    def _leave(self) -> None:
        """Close the connections: workers that wait for this one would wait for half an hour."""
        import torch.distributed

        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


@contextmanager
def _printed(lines: Path) -> Iterator[None]:
    """Print what is appended to a file while the block runs: Ray would put a process id before every line."""
    start = lines.stat().st_size if lines.exists() else 0
    ended = threading.Event()

    def follow() -> None:
        """Print what worker 0 wrote since the last look, until the run ends."""
        at = start
        while True:
            last_look = ended.wait(0.2)
            if lines.exists():
                with lines.open() as file:
                    file.seek(at)
                    print(file.read(), end="", flush=True)
                    at = file.tell()
            if last_look:
                return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
