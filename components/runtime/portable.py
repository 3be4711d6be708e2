"""Exceptions made ready to travel to another process: pickle, which takes them there, leaves out what they were raised from."""

from __future__ import annotations

import copy

from components.runtime.diagnosis import RAISED_FROM, reason_of


def portable(error: BaseException) -> BaseException:
    """`error` with what it was raised from in a field that `diagnosis` reads, and that in turn.

    A RuntimeError takes the place of one that cannot be sent.
    """
    reason = reason_of(error)
    try:
        copy.deepcopy(error)  # which takes apart and puts together as sending does
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    if reason is not None:
        error.__dict__[RAISED_FROM] = portable(reason)
    return error
