"""Matrices that lie in shards, put together one on each worker, changed there as a whole, and handed back as shards.

Legend: N workers that hold a whole together; R rows of a matrix.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.distributed
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Shards:
    """How some matrices, cut by their rows, lie on the workers of a group."""

    shapes: Sequence[torch.Size]
    """Of the whole matrices."""
    group: torch.distributed.ProcessGroup
    rank: int
    size: int

    def turns(self, parts: Sequence[Tensor], dtype: torch.dtype) -> Iterator[Turn]:
        """N matrices at a time, of which each worker gets one, in `dtype`. parts: this worker's of each; all call together."""
        for start in range(0, len(parts), self.size):
            yield Turn(self, start, list(parts[start : start + self.size]), dtype)

    def split(self, number: int) -> list[int]:
        """How many of a matrix's numbers lie on each worker; none of one that is not there, behind the last."""
        if number >= len(self.shapes):
            return [0] * self.size
        rows, width = self.shapes[number][0], math.prod(self.shapes[number][1:])
        # As torch cuts: equal pieces as long as there are rows, and perhaps none for the last workers.
        piece = -(-rows // self.size)
        return [max(0, min(piece, rows - rank * piece)) * width for rank in range(self.size)]


class Turn:
    """One matrix on each worker."""

    def __init__(self, shards: Shards, start: int, parts: list[Tensor], dtype: torch.dtype) -> None:
        self.shards, self.parts = shards, parts
        self.number = start + shards.rank
        """Which one this worker has."""
        self._given = [part.numel() for part in parts] + [0] * (shards.size - len(parts))
        self._taken = shards.split(self.number)
        flat = torch.cat([part.flatten() for part in parts]).to(dtype)
        self._flat = self._exchanged(flat, self._taken, self._given)
        shape = shards.shapes[self.number] if self.number < len(shards.shapes) else None
        # Rows lie one behind the other, so the workers' pieces in their order are the matrix.
        self.matrix = None if shape is None else self._flat.view(shape)
        """To be changed in place; None for a worker without one in the last turn."""

    def hand_back(self) -> None:
        """Write what became of the matrices into the parts, on all workers."""
        back = self._exchanged(self._flat, self._given, self._taken)
        for part, piece in zip(self.parts, back.split(self._given[: len(self.parts)]), strict=True):
            part.copy_(piece.view_as(part))

    def _exchanged(self, sent: Tensor, received: list[int], given: list[int]) -> Tensor:
        """What each worker sends to each: so many numbers from each, so many to each."""
        found = sent.new_empty(sum(received))
        torch.distributed.all_to_all_single(found, sent, received, given, group=self.shards.group)
        return found


def shards_of(parameters: Sequence[Tensor]) -> Shards | None:
    """How they lie on the workers; None where they are whole. They are cut over the last axis of one mesh, by rows."""
    if not parameters or not hasattr(parameters[0], "device_mesh"):
        return None
    mesh = cast(Any, parameters[0]).device_mesh
    # Of HSDP every machine does the whole work for itself: nothing travels between machines.
    last = mesh.ndim - 1
    shapes = [parameter.shape for parameter in parameters]
    return Shards(shapes=shapes, group=mesh.get_group(last), rank=mesh.get_local_rank(last), size=mesh.size(last))
