"""A step that does not end is found, said which worker it hangs in, and ended: all start again from the newest checkpoint.

Every worker sets a timer of its own (faulthandler's, a thread in C, which fires also where Python's lock is never given back)
that writes down where the worker stands and ends its process. A process that is stopped cannot do even that: the one that
started the workers ends it (`stopped_ended`). Workers wait for each other, so one that hangs lets all timers run out; `hang`
says from what they left behind which one it was.
"""

from __future__ import annotations

import faulthandler
import json
import math
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from components.runtime.world import World
from components.training.trainer import Every, Trainer
from core.files import fresh_folder

# For what may take much longer than a step: the first one, which compiles, and checkpoints, validations and sample images, for
# which the other workers wait in their next step.
LONG, LONG_AT_LEAST_S = 10, 600.0
# How long the timer of a process that runs may be late.
GRACE_S, LOOK_EVERY_S = 5.0, 0.5
NOTE, TRACE, STOPPED = ".json", ".trace", ".stopped"
# Where a worker waits for the others: the collectives, and the backward pass, which averages gradients in C++.
WAITING = re.compile(r"/torch/(distributed|autograd|nn/parallel)/")
FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<function>\S+)')


class Watchdog:
    """with Watchdog(folder, world, timeout_s) as watchdog: trainer.run(watchdog.over(trainer, schedule), first_step=1)

    folder: where all workers of a run leave their notes, the same for all. timeout_s: of a plain step, in seconds; with 0
    nothing is watched.
    """

    def __init__(self, folder: Path, world: World, timeout_s: float) -> None:
        self.timeout_s, self._path = timeout_s, folder / f"worker-{world.rank}"
        self._about: dict[str, Any] = {"size": world.size}

    def __enter__(self) -> Self:
        if self.timeout_s:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered, for the process ends without closing them.
            self._note = self._path.with_suffix(NOTE).open("wb", buffering=0)
            self._trace = self._path.with_suffix(TRACE).open("wb", buffering=0)
            place = {"host": socket.gethostname(), "pid": os.getpid(), "started_s": started_s(os.getpid())}
            self._about |= place | {"thread": threading.get_ident()}
            self._allow("its first step", is_long=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.timeout_s:
            faulthandler.cancel_dump_traceback_later()
            if error is None:
                self._path.with_suffix(NOTE).unlink(missing_ok=True)
            else:
                # It is not one that has ended early: it may have lost its connection to one that was ended here.
                self._write("an error", math.inf)
            self._note.close()
            self._trace.close()

    def over(self, trainer: Trainer, schedule: Sequence[Every]) -> list[Every]:
        """The schedule with its actions watched; from now on the trainer's steps are, too."""
        if not self.timeout_s:
            return list(schedule)
        take, first_step = trainer.train_step, 0

        def watched(step: int) -> Any:
            nonlocal first_step
            first_step = first_step or step
            # All workers know what is due, so that none counts the time for which it waits for another one's checkpoint.
            others_act = any(every.takes_long and every.is_due(step - 1, trainer.last_step) for every in schedule)
            self._allow(f"step {step}", is_long=others_act or step == first_step)
            return take(step)

        trainer.train_step = watched
        # In their places: what is due after a step, and nothing else, makes the trainer wait for the step's numbers.
        return [every._replace(action=partial(self._act, every)) if every.takes_long else every for every in schedule]

    def _act(self, every: Every, step: int) -> None:
        self._allow(f"what is due after step {step}", is_long=True)
        every.action(step)

    def _allow(self, what: str, *, is_long: bool) -> None:
        limit_s = max(LONG * self.timeout_s, LONG_AT_LEAST_S) if is_long else self.timeout_s
        faulthandler.dump_traceback_later(limit_s, exit=True, file=self._trace)
        self._write(what, limit_s)

    def _write(self, what: str, limit_s: float) -> None:
        note = json.dumps(self._about | {"what": what, "limit_s": limit_s}).encode()
        # In one call and over the old one, so that no reader finds it half written.
        os.pwrite(self._note.fileno(), note.ljust(512), 0)


@contextmanager
def stopped_ended(folder: Path) -> Iterator[None]:
    """Inside the block, workers of this machine whose timers have run out and did not end them are ended by SIGKILL."""
    fresh_folder(folder)
    over = threading.Event()

    def look() -> None:
        seen: dict[Path, tuple[dict[str, Any], float]] = {}
        while not over.wait(LOOK_EVERY_S):
            for path in folder.glob(f"*{NOTE}"):
                note = _note_of(path)
                if path not in seen or note != seen[path][0]:
                    seen[path] = (note, time.monotonic())
                elif note and time.monotonic() - seen[path][1] > note["limit_s"] + GRACE_S:
                    _end(note, path.with_suffix(STOPPED))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def hang(folder: Path) -> str:
    """Which worker hung, and where, as a clause; "" where none did. What it was read from is removed."""
    paths = sorted(folder.glob(f"*{NOTE}"))
    found = [_Left(path) for path in paths]
    clause = _clause(found) if any(each.stopped or each.trace for each in found) else ""
    for path in folder.glob("worker-*"):
        path.unlink(missing_ok=True)
    return clause


class _Left:
    """What a worker left behind whose timer ran out, or who was ended for it."""

    def __init__(self, note: Path) -> None:
        self.name, self.note = note.stem.replace("-", " "), _note_of(note)
        self.stopped, self.trace = note.with_suffix(STOPPED).exists(), _text(note.with_suffix(TRACE))

    @property
    def place(self) -> str:
        """Where the thread that trains stood: file:line in function."""
        for part in self.trace.split("\n\n"):
            if f"{self.note.get('thread', 0):#018x}" in part and (frame := FRAME.search(part)):
                return f"{frame['file']}:{frame['line']} in {frame['function']}"
        return "nowhere that is known"

    def hangs(self, how: str) -> str:
        """A clause about this one."""
        return f"{self.name} on {self.note.get('host')} hangs in {self.note.get('what')} ({how}; {self.limit})"

    @property
    def failed(self) -> bool:
        """Whether it raised an exception before its time was over."""
        return math.isinf(self.note.get("limit_s", 0))

    @property
    def limit(self) -> str:
        """What was waited for."""
        return f"it takes more than the {self.note.get('limit_s', 0):g} s that train.step_timeout_s gives it"


def _clause(found: list[_Left]) -> str:
    ended = set(range(found[0].note.get("size", 0))) - {int(each.name.rpartition(" ")[2]) for each in found}
    # A process that left no trace while others ran out of time cannot have been running.
    for each in found:
        if each.stopped or (not each.trace and not each.failed):
            return each.hangs("its process is stopped, or gone")
    found = [each for each in found if not each.failed]
    for each in found:
        if not WAITING.search(each.place):
            return each.hangs(f"at {each.place}")
    first = found[0]
    if ended:
        return f"worker {min(ended)} has ended, and the others wait for it in {first.note.get('what')} ({first.limit})"
    return f"all workers wait for each other in {first.note.get('what')} ({first.name} at {first.place}; {first.limit})"


def _end(note: dict[str, Any], mark: Path) -> None:
    # Only the process that wrote the note: numbers are given again, and mean another process on another machine.
    if note["host"] == socket.gethostname() and started_s(note["pid"]) == note["started_s"]:
        mark.touch()
        with suppress(ProcessLookupError):
            os.kill(note["pid"], signal.SIGKILL)


def started_s(pid: int) -> float:
    """When a process of this machine began, in seconds since 1970; 0 where there is none."""
    import psutil

    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return 0.0


def _note_of(path: Path) -> dict[str, Any]:
    """What a worker noted last; empty where it is just beginning."""
    try:
        return json.loads(_text(path) or "{}")
    except ValueError:
        return {}


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""
