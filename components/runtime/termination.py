"""SIGTERM and SIGHUP as an exception: runs are ended, workers stopped and temporary folders removed on that way out too."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

# What a shell shows of a process that SIGTERM ended.
TERMINATED = 128 + signal.SIGTERM
# The second comes where a terminal is closed or a connection to the machine breaks; under nohup it is ignored, and stays so.
SIGNALS = (signal.SIGTERM, signal.SIGHUP)
# `timeout` and others send it twice, to the process and to its group: the second must not cut the way out short.
SAME_S = 10.0
_asked_s = -math.inf  # when it came


def asked() -> bool:
    """Whether the signal came, inside `termination_raised`: other failures then follow from it, in processes that it ended."""
    return _asked_s > -math.inf


@contextmanager
def termination_raised() -> Iterator[None]:
    """SIGNALS raise SystemExit(TERMINATED) in the block, where nobody else handles them."""
    global _asked_s

    def leave(number: int, frame: object) -> None:
        global _asked_s
        if time.monotonic() - _asked_s > SAME_S:
            _asked_s = time.monotonic()
            raise SystemExit(TERMINATED)

    is_main = threading.current_thread() is threading.main_thread()
    unhandled = [each for each in SIGNALS if is_main and signal.getsignal(each) == signal.SIG_DFL]
    if not unhandled:
        yield
        return
    _asked_s = -math.inf
    for each in unhandled:
        signal.signal(each, leave)
    try:
        yield
    finally:
        for each in unhandled:
            signal.signal(each, signal.SIG_DFL)
