"""Numbers of a step that are read a step later: by then a device has them, and the host need not wait for it."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import torch
from torch import Tensor


class _Copy(NamedTuple):
    step: int
    host: Tensor
    is_there: torch.cuda.Event | None
    """Reached when `host` holds the numbers; None where it does already."""


class LateNumbers:
    """The numbers of steps that have not been read, in their order."""

    def __init__(self) -> None:
        self._waiting: deque[_Copy] = deque()

    def add(self, step: int, numbers: Tensor) -> None:
        """Have the numbers of a step copied, float64 [N]."""
        if numbers.device.type != "cuda":
            self._waiting.append(_Copy(step, numbers.detach().clone(), None))
            return
        host = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
        host.copy_(numbers.detach(), non_blocking=True)
        is_there = torch.cuda.Event()
        is_there.record()
        self._waiting.append(_Copy(step, host, is_there))

    def take(self, num_kept: int) -> list[tuple[int, list[float]]]:
        """Steps and their numbers, all but those of the last num_kept, which are waited for another time."""
        found = []
        while len(self._waiting) > num_kept:
            step, host, is_there = self._waiting.popleft()
            if is_there is not None:
                is_there.synchronize()
            # By numpy, which reads memory and asks no device.
            found.append((step, host.numpy().tolist()))
        return found

    def clear(self) -> None:
        """Forget them."""
        self._waiting.clear()
