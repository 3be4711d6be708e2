"""Something that happens in the middle of writing: the process is killed, or the disk is full, at the n-th change of files.

Python says of every file that it opens, renames or removes (sys.addaudithook), in whichever thread and library. Inside a file,
the system's own limit on the size of files ends the process, or refuses to write.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from components.training.transformer.run import TransformerRun

# Of a rename the place that is renamed to.
PATH_AT = {"open": (0, None), "os.mkdir": (0, 2), "os.rename": (1, 3), "os.remove": (0, 1), "os.rmdir": (0, 1)}


@dataclass(frozen=True)
class Trap:
    """Worker 0's, set by tiny.Workers."""

    kind: Literal["note", "kill", "cut", "full"]
    """"note" only lists the changes in `events`; "kill" comes before the change; "cut" kills inside the next file that grows
    beyond size_limit bytes, and "full" refuses to write it."""
    at: int = -1
    """The change at which it goes off, from 0; -1: never."""
    size_limit: int = 0

    def __call__(self, run: TransformerRun, rank: int) -> None:
        if rank:
            return
        places, count = (str(run.store), str(run.finished)), 0

        def on_audit(event: str, values: tuple[Any, ...]) -> None:
            nonlocal count
            if event not in PATH_AT or not (path := _changed(event, values)).startswith(places):
                return
            if self.kind == "note":
                os.write(log, f"{event} {path}\n".encode())
            elif count == self.at:
                self._go_off()
            count += 1

        log = os.open(events(run), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        sys.addaudithook(on_audit)

    def _go_off(self) -> None:
        if self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if self.kind == "cut":
            # From whichever thread: the system's own way to end a process at that signal.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGXFSZ])
            _default(signal.SIGXFSZ)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size_limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def events(run: TransformerRun) -> Path:
    """Where a trap of kind "note" lists the changes."""
    return run.folder / "events.log"


def noted(run: TransformerRun) -> Iterator[tuple[str, str]]:
    """The changes: what happened, and the path."""
    for line in events(run).read_text().splitlines():
        event, _, path = line.partition(" ")
        yield event, path


def _changed(event: str, values: tuple[Any, ...]) -> str:
    """The path that is about to change; "" where none is."""
    if event == "open" and not _writes(values[1], values[2]):
        return ""
    path_at, folder_at = PATH_AT[event]
    path = values[path_at]
    if not isinstance(path, (str, bytes, os.PathLike)):
        return ""
    folder = values[folder_at] if folder_at is not None else -1
    name = os.fsdecode(path)
    return name if folder in (-1, None) else str(Path(f"/proc/self/fd/{folder}").readlink() / name)


def _writes(mode: Any, flags: Any) -> bool:
    # A folder is opened to be synchronised.
    flags = int(flags or 0)
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_DIRECTORY)) or (
        isinstance(mode, str) and mode[:1] in "wax"
    )


def _default(number: signal.Signals) -> None:
    """Python sets handlers in its main thread alone."""
    import ctypes

    ctypes.CDLL(None).signal(int(number), 0)
