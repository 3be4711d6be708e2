"""What the next steps read, made while a step is taken, by a thread of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Self, TypeVar

T = TypeVar("T")
# Made beforehand: the next step's, and one more, so that one that takes long is made up for by others.
NUM_AHEAD = 2


class Prefetch(Generic[T]):
    """`make(step)` for one step after the other, a pure function of the step.

    with Prefetch(read, last_step) as batches: ... batches.of(step): the next ones are being made when this one is given. What
    `make` raises is raised by the step that needs it. Outside the block there is no thread, and a step's is made when it is
    asked for.
    """

    def __init__(self, make: Callable[[int], T], last_step: int) -> None:
        """last_step: nothing is made for a step behind it."""
        self._make, self._last_step = make, last_step
        self._thread: ThreadPoolExecutor | None = None
        self._made: dict[int, Future[T]] = {}

    def __enter__(self) -> Self:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
        return self

    def __exit__(self, *error: object) -> None:
        if self._thread is not None:
            # Also where an interrupt ends the block: what has not begun is dropped, and a batch takes milliseconds.
            self._thread.shutdown(wait=True, cancel_futures=True)
        self._thread = None
        self._made.clear()

    def of(self, step: int) -> T:
        """What `make(step)` gives."""
        if self._thread is None:
            return self._make(step)
        wanted = range(step, max(step, min(step + NUM_AHEAD, self._last_step)) + 1)
        # What was made for other steps is of a course that the training has left.
        for left in [each for each in self._made if each not in wanted]:
            self._made.pop(left).cancel()
        for each in wanted:
            if each not in self._made:
                self._made[each] = self._thread.submit(self._make, each)
        return self._made.pop(step).result()
