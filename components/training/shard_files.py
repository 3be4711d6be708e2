"""How torch.distributed.checkpoint writes a checkpoint here: every worker its files, then worker 0 the manifest, then the name.

The files are what torch's own HuggingFaceStorageReader reads: safetensors whose metadata says where in the whole tensors their
parts belong. Its HuggingFaceStorageWriter holds each file twice in memory, and takes no digests.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult
from torch.futures import Future

from components.training.checkpoints import KIND, LAYOUT
from components.training.tensor_file import Entry, write_tensors
from core.manifest import write_manifest

UNFINISHED = ".partial-"
# As torch's reader knows them.
OFFSETS, VERSION = "DCP_SHARDING_INFO", {"DCP_VERSION": "1.0", "format": "pt"}


class ShardWriter(StorageWriter):
    """Writes one checkpoint; `stand` gets the folder once it is whole, on worker 0."""

    def __init__(self, store: Path, step: int, rank: int, stand: Callable[[Path, int], None]) -> None:
        self.store, self.step, self.rank, self.stand = store, step, rank, stand
        self.folder: Path | None = None

    def reset(self, checkpoint_id: str | PathLike[str] | None = None) -> None:
        """Nothing is known of an earlier one."""

    def set_up_storage_writer(self, is_coordinator: bool, *arguments: Any, **options: Any) -> None:
        """Worker 0 makes the folder, and removes those that killed processes left."""
        if is_coordinator:
            for left in self.store.glob(f"{UNFINISHED}*"):
                shutil.rmtree(left, ignore_errors=True)
            # A new name each time: workers of a killed run may still be writing for a while, and must not write in here.
            self.folder = self.store / f"{UNFINISHED}{uuid.uuid4().hex[:12]}"
            self.folder.mkdir(parents=True)

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """As it is."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Tell all workers the folder's name."""
        assert self.folder is not None
        return [replace(plan, storage_data=self.folder.name) for plan in plans]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """This worker's files, one for each part of the state."""
        parts: defaultdict[str, list[WriteItem]] = defaultdict(list)
        for item in plan.items:
            parts[item.index.fqn.partition("/")[0]].append(item)
        folder = self.store / plan.storage_data
        written: Future[list[WriteResult]] = Future()
        written.set_result([self._write(folder, part, items, planner) for part, items in parts.items()])
        return written

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """On worker 0, when all have written: the manifest, and then the checkpoint's place."""
        assert self.folder is not None
        written = {name: entry for result in results for each in result for name, entry in each.storage_data.items()}
        write_manifest(self.folder, kind=KIND, layout=LAYOUT, step=self.step, written=written)
        self.stand(self.folder, self.step)

    def discard(self) -> None:
        """Remove what was written: where the disk is full, half a checkpoint is in the way of the next try."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | PathLike[str]) -> bool:
        """Whether it is a path."""
        return Path(checkpoint_id).parent.is_dir()

    def _write(self, folder: Path, part: str, items: list[WriteItem], planner: SavePlanner) -> WriteResult:
        name, entries, offsets = f"{part}.rank-{self.rank}.safetensors", dict[str, Entry](), dict[str, Any]()
        for item in items:
            data = item.tensor_data
            assert data is not None and data.chunk is not None
            # What the planner gives is the snapshot's, and stays as it is until the next one.
            entries[item.index.fqn] = Entry(data.properties.dtype, data.chunk.sizes, partial(planner.resolve_data, item))  # pyright: ignore[reportArgumentType]
            offsets[item.index.fqn] = {"saved_offsets": list(data.chunk.offsets)}
        num_bytes, sha256 = write_tensors(folder / name, entries, {OFFSETS: json.dumps(offsets), **VERSION})
        return WriteResult(items[0].index, num_bytes, {name: {"bytes": num_bytes, "sha256": sha256}})
