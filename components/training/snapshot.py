"""A worker's part of a state, copied as it is at one moment, so that training goes on while it is written.

Of a sharded tensor a worker copies its shard, of copies of a shard the first; a tensor that all workers hold whole is worker
0's. Nobody ever holds the whole of a sharded model. Buffers are kept from one checkpoint to the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner, create_default_local_save_plan
from torch.distributed.checkpoint.metadata import MetadataIndex
from torch.distributed.checkpoint.planner import SavePlan, WriteItem
from torch.distributed.tensor import DTensor

from components.runtime.world import World


class Snapshot(DefaultSavePlanner):
    """Values as they were, and where in the whole tensors they belong: what torch.distributed.checkpoint is to write."""

    def __init__(self, items: Sequence[WriteItem], values: Mapping[str, Tensor], copied: torch.Event | None) -> None:
        """copied: when it has happened, `values` are there; None where they are already."""
        super().__init__(flatten_state_dict=False)
        self.items, self.values, self.copied = list(items), values, copied

    def create_local_plan(self) -> SavePlan:
        """Of this worker."""
        self.plan = SavePlan(self.items)
        return self.plan

    def lookup_object(self, index: MetadataIndex) -> Tensor:
        """The copy of a tensor, or of this worker's shard of it."""
        if self.copied is not None:
            self.copied.synchronize()
        return self.values[index.fqn]


class Snapshots:
    """Takes them one after the other: the next one overwrites the last."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.buffers: dict[str, Tensor] = {}
        self.stream = torch.cuda.Stream(world.device) if world.device.type == "cuda" else None

    def take(self, tensors: Mapping[str, Tensor]) -> Snapshot:
        """A copy of what this worker is to write of `tensors`. A GPU copies behind what it is doing; nobody waits for it."""
        own = {name: tensor.detach() for name, tensor in tensors.items() if self._writes(tensor)}
        items = create_default_local_save_plan(own, self.world.rank == 0).items
        local = {name: tensor.to_local() if isinstance(tensor, DTensor) else tensor for name, tensor in own.items()}
        self.buffers = {name: self._buffer(name, tensor) for name, tensor in local.items()}
        return Snapshot(items, self.buffers, self._copy(local))

    def _writes(self, tensor: Tensor) -> bool:
        if not isinstance(tensor, DTensor):
            return self.world.rank == 0
        place = tensor.device_mesh.get_coordinate()
        # Along an axis of replicas all hold the same.
        axes = zip(place or (), tensor.placements, strict=True) if place is not None else ()
        return place is not None and all(at == 0 or not placement.is_replicate() for at, placement in axes)

    def _buffer(self, name: str, tensor: Tensor) -> Tensor:
        known = self.buffers.get(name)
        if known is not None and known.shape == tensor.shape and known.dtype == tensor.dtype:
            return known
        # From pinned memory alone can a GPU copy while it computes.
        return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.device.type == "cuda")

    def _copy(self, tensors: Mapping[str, Tensor]) -> torch.Event | None:
        if self.stream is None:
            for name, tensor in tensors.items():
                self.buffers[name].copy_(tensor)
            return None
        training = torch.cuda.current_stream(self.world.device)
        self.stream.wait_stream(training)
        with torch.cuda.stream(self.stream):
            for name, tensor in tensors.items():
                self.buffers[name].copy_(tensor, non_blocking=True)
        # The next step changes the weights, but not before they are copied; it is the GPU that waits.
        training.wait_stream(self.stream)
        return self.stream.record_event()
