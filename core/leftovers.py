"""Names of files that are being written, by which the next process to write there knows what a killed one left."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cache
from pathlib import Path

ENDING = ".partial"


def partial_of(path: Path) -> Path:
    """Where this process writes the file that is to stand at `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}{ENDING}")


def remove_leftovers_of(path: Path) -> None:
    """Remove what processes that have ended left of the file at `path`, where this process may.

    Of this file alone: workers on other machines, whose processes cannot be asked for here, write beside it.
    """
    before = f".{path.name}."
    for name in _partials(path.parent.absolute()):
        owner = name.removeprefix(before).removesuffix(ENDING)
        if name.startswith(before) and owner.isdecimal() and not is_alive(int(owner)):
            with suppress(OSError):
                path.with_name(name).unlink()


def is_alive(process: int) -> bool:
    """Whether a process of this machine has that number."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


@cache
def _partials(folder: Path) -> tuple[str, ...]:
    """What stands there when this process first writes there: a folder may hold thousands of files, each written once."""
    with suppress(OSError):
        return tuple(path.name for path in folder.iterdir() if path.name.endswith(ENDING))
    return ()
