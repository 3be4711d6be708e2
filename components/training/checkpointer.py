"""A run's checkpoints from a worker's side: each is a short copy in memory, and is written while training goes on.

All workers call every method together. What a write failed with is raised by the next call, on all of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import torch.distributed as dist
import torch.distributed.checkpoint as dcp

from components.runtime.world import World
from components.training.checkpoint_folders import folder_of, resume, stand
from components.training.checkpoints import TrainingState, checked, read_state, reason_of, tensors_of
from components.training.shard_files import ShardWriter
from components.training.snapshot import Snapshot, Snapshots


class Checkpointer:
    """One worker's."""

    def __init__(self, store: Path, state: TrainingState, world: World, say: Callable[[str], None]) -> None:
        """store: the folder of the checkpoints, the same for all workers. say: takes a line about what was found there."""
        self.store, self.state, self.world, self.say = store, state, world, say
        self.step = 0
        # A group of its own, because training uses the other one at the same time, and one that needs no GPU.
        self._group = cast(dist.ProcessGroup, dist.new_group(backend="gloo")) if world.size > 1 else None
        self._snapshots = Snapshots(world)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._written: Future[None] | None = None
        # A worker alone has no group, which torch would say at every checkpoint.
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")

    @property
    def first_step(self) -> int:
        """The step after the one that was loaded, or 1."""
        return self.step + 1

    @property
    def folder(self) -> Path:
        """Of the checkpoint that was loaded or saved last; on disk after `wait`."""
        return folder_of(self.store, self.step)

    def restore(self) -> int:
        """Load the newest whole checkpoint into the state; returns its step, 0 where there is none and nothing is changed."""
        self.wait()
        check = partial(checked, share=slice(self.world.rank, None, self.world.size))
        load = partial(read_state, state=self.state)
        self.step = resume(self.store, check=check, load=load, say=self.say, world=self.world)
        return self.step

    def save(self, step: int) -> None:
        """Keep the state as it is now, after `step`. It is on disk, or has failed, when the next call returns."""
        self.wait()
        snapshot = self._snapshots.take(tensors_of(self.state))
        self._written = self._thread.submit(self._write, snapshot, step)
        self.step = step

    def wait(self) -> None:
        """Until the last checkpoint is on disk; raises what hindered it, whichever worker that was."""
        written, self._written = self._written, None
        if written is not None:
            written.result()

    def _write(self, snapshot: Snapshot, step: int) -> None:
        writer = ShardWriter(self.store, step, self.world.rank, stand)
        try:
            dcp.save({}, storage_writer=writer, planner=snapshot, process_group=self._group, no_dist=self._group is None)
        except dcp.CheckpointException as error:
            writer.discard()
            raise reason_of(error) from None
        except BaseException:  # the connection to another worker
            writer.discard()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Wait for the last one; where training failed, its failure is the one that counts."""
        try:
            with suppress(*(BaseException,) if kind else ()):
                self.wait()
        finally:
            self._thread.shutdown()
            if self._group is not None and kind is None:
                dist.destroy_process_group(self._group)
