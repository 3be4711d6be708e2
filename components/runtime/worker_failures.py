"""What the failure of a process that trains means: whether it is tried again, and what the user is told.

Ray hands over what workers raised without their tracebacks, and its own exception shows Ray's. A worker's exception
therefore carries its traceback as a note.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from components.runtime.diagnosis import RAISED_FROM, first_line
from components.runtime.portable import portable
from core.errors import BadInput, GateRefused, WorkersFailed

# When an exception was raised, in seconds since 1970: the first failure is the one that the others followed from.
FAILED_AT = "failed_at"


class Failure(NamedTuple):
    """Why a try ended. what: a clause for a line of progress. error: what a worker raised; None where it ended without a word.

    lasts: the next try would end in the same way.
    """

    what: str
    error: BaseException | None
    lasts: bool

    def to_raise(self, num_failures: int) -> BaseException:
        """What to raise where it is not tried again."""
        if self.error is not None:
            return self.error
        times = "once" if num_failures == 1 else f"{num_failures} times"
        return WorkersFailed(
            f"{self.what}, {times} without a new checkpoint in between; look for what kills it (memory: make the batch or the "
            "model smaller), or lower checkpoint_every_steps; run again to go on from the last checkpoint"
        )


class Traced:
    """A worker's function whose exception reaches the driver whole: with its traceback, as a note, and with its reasons."""

    def __init__(self, function: Callable[[dict[str, Any]], None]) -> None:
        self.function = function

    def __call__(self, config: dict[str, Any]) -> None:
        try:
            self.function(config)
        except BaseException as error:
            raise _with_traceback(error) from None


def failure_of(error: Exception) -> Failure:
    """What made Ray Train raise `error`: of several workers' failures the one that the others followed from."""
    failures: dict[int, BaseException] = getattr(error, "worker_failures", {})
    raised = {rank: each for rank, each in failures.items() if not _is_rays(each)}
    lasting = [each for each in raised.values() if _lasts(each)]
    if lasting:
        return Failure(first_line(lasting[0]), lasting[0], lasts=True)
    if gone := sorted(failures.keys() - raised.keys()):
        # The others lost their connections to it.
        return Failure(f"worker {gone[0]} ended without a word, killed from outside or for want of memory", None, lasts=False)
    if raised:
        rank = min(raised, key=lambda rank: raised[rank].__dict__.get(FAILED_AT, math.inf))
        return Failure(f"worker {rank} failed ({first_line(raised[rank])})", raised[rank], lasts=False)
    behind = getattr(error, "controller_failure", error)
    return Failure(f"the workers could not be run ({first_line(behind)})", None, lasts=False)


def _is_rays(error: BaseException) -> bool:
    """Ray's word for a process that ended, was lost or did not start."""
    return type(error).__module__.startswith("ray.")


def _lasts(error: BaseException) -> bool:
    """Whether it would happen again at once: what the user gave, the disk and the memory do not change by themselves."""
    reason = error.__dict__.get(RAISED_FROM)
    if reason is not None and _lasts(reason):
        return True
    if isinstance(error, (BadInput, GateRefused, MemoryError)) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        # Connections break and come back. Libraries make errors of their own an OSError, without a number.
        return error.errno is not None and not isinstance(error, (ConnectionError, TimeoutError))
    return type(error).__name__ == "SafetensorError"


def _with_traceback(error: BaseException) -> BaseException:
    """`error`, ready to be sent, with its traceback for a note."""
    lines = "".join(traceback.format_exception(error))
    error = portable(error)
    error.add_note(f"In the worker:\n{lines}")
    error.__dict__[FAILED_AT] = time.time()
    return error
