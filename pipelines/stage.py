"""Start and end of a stage: options, parameters, the lock, and exit codes that mean the same everywhere."""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from components.runtime import surroundings
from components.runtime.diagnosis import sentence_of
from components.runtime.provenance import code_state
from components.runtime.stage_facts import note_stage
from components.runtime.termination import SIGNALS, TERMINATED, asked, termination_raised
from core.errors import BadInput, GateRefused
from pipelines import loading, paths
from pipelines.params import ParamsError, load
from pipelines.sections import Params

EXIT_CODES = "Exit codes: 0 done; 1 the stage failed or a gate refused; 2 bad configuration; 130 interrupted; 143 terminated."
# One runs every time, and must leave nothing new; the other shows the notes.
UNNOTED = ("inputs", "report")
TOLD_TO_END = "terminated; finished work is kept, run again to go on"
OURS = "a fault of the program, not of what it was given; finished work is kept. Please report it with the lines above"


def run(name: str, description: str | None, main: Callable[[Params], None]) -> None:
    """Run `main` as the stage `name` with the command line's parameters, and exit with the stage's code."""
    arguments = parse(name, description)
    sys.exit(execute(name, lambda: main(load(arguments.params, arguments.set))))


def parse(name: str, description: str | None, *positional: tuple[str, list[str], str]) -> argparse.Namespace:
    """The options every stage has; positional: (name, choices, help) of further arguments."""
    parser = argparse.ArgumentParser(prog=f"python -m pipelines.{name}", description=description, epilog=EXIT_CODES)
    for argument, choices, text in positional:
        parser.add_argument(argument, choices=choices, help=text)
    parser.add_argument(
        "--params", type=Path, default=paths.PARAMS, metavar="PATH", help="parameters to read (default: params.yaml)"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=C", help="override one parameter; may be given again"
    )
    return parser.parse_args()


def execute(name: str, work: Callable[[], None]) -> int:
    """Call `work` under the stage's lock; the returned exit code says how it ended."""
    started_s = time.monotonic()
    die_with_parent()

    def locked() -> None:
        print(f"--- {name}", flush=True)
        with exclusive(name):
            # As it is now: a long stage may outlast a commit, and what it runs was read before.
            code = code_state()
            work()
            seconds = time.monotonic() - started_s
            if name not in UNNOTED:
                note_stage(paths.RAN / f"{name}.json", seconds, code)
        print(f"{name}: done in {seconds:.1f} s", flush=True)

    return exit_code(f"{name}: ", locked)


def exit_code(prefix: str, work: Callable[[], None]) -> int:
    """Call `work`; what ends it becomes a sentence after `prefix` and the exit code. A fault of ours keeps its traceback."""
    loading.unguard()
    surroundings.settle()
    try:
        with termination_raised():
            work()
    except KeyboardInterrupt:
        return _say(f"{prefix}interrupted; finished work is kept, run again to go on", loading.INTERRUPTED)
    except SystemExit as error:
        if error.code != TERMINATED and not asked():  # Ray, told to end too, exits by itself
            raise
        return _told_to_end(prefix)
    except Exception as error:
        # Told to end, whatever else goes wrong follows from that: the signal may have ended workers first.
        return _told_to_end(prefix) if asked() else _failed(prefix, error)
    return 0


def _told_to_end(prefix: str) -> int:
    # `timeout` sends the signal twice; the second may come this late, and would change the exit code.
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    return _say(prefix + TOLD_TO_END, TERMINATED)


def _failed(prefix: str, error: Exception) -> int:
    if isinstance(error, ParamsError):
        return _say(f"{prefix}bad configuration: {error}", 2)
    if isinstance(error, GateRefused):
        return _say(f"{prefix}refused: {error}", 1)
    if isinstance(error, BadInput):
        return _say(f"{prefix}bad input: {error}", 1)
    sentence = sentence_of(error)
    if sentence is None or os.environ.get("TRANSFUSION_TRACEBACK", "0") not in ("", "0"):
        traceback.print_exception(error)
    return _say(prefix + (f"failed: {sentence}" if sentence else OURS), 1)


@contextmanager
def exclusive(name: str) -> Iterator[None]:
    """Hold the stage's lock: an orphan of a killed run must not write beside a new one."""
    paths.WORK.mkdir(exist_ok=True)
    with (paths.WORK / f"{name}.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise BadInput(f"another {name} runs in this folder (process {holder}); wait for it or stop it") from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def die_with_parent() -> None:
    """Ask Linux to end this process when its parent (dvc, a shell) is killed; elsewhere do nothing."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, signal.SIGTERM)


def _say(sentence: str, code: int) -> int:
    # Where stderr is full or closed too, the exit code must do.
    with suppress(OSError):
        print(sentence, file=sys.stderr, flush=True)
    _close_broken_output()
    return code


def _close_broken_output() -> None:
    """Python flushes stdout once more as it ends, and says so where that fails."""
    if sys.stdout is None:  # closed before Python began
        return
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
