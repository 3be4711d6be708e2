"""How does a long step say that it is alive? One plain line every few seconds, with the rate and what is left."""

from __future__ import annotations

import time
from collections.abc import Callable

EVERY_S = 10.0


def report_progress(what: str) -> Callable[[int, int], None]:
    """A function of (done, in all) that prints at most every EVERY_S seconds, and at the end."""
    started_s = said_s = time.monotonic()

    def say(done: int, total: int) -> None:
        """Print a line, unless the last one is only seconds old."""
        nonlocal said_s
        now_s = time.monotonic()
        if done < total and now_s - said_s < EVERY_S:
            return
        said_s = now_s
        rate = done / max(now_s - started_s, 1e-9)
        print(f"{what} {done}/{total} | {rate:.1f}/s | eta {(total - done) / max(rate, 1e-9):.0f} s", flush=True)

    return say
