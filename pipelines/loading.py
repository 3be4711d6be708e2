"""The time while a command's modules are loaded: what ends it then is one sentence too.

Loading takes seconds, in which nothing of ours runs yet: an interrupt, a lack of memory or a missing package would show
the inside of whatever library is being loaded.
"""

from __future__ import annotations

import os
import signal
import sys
from types import TracebackType

INTERRUPTED = 130
_SIGNAL_BEFORE = signal.default_int_handler


def guard() -> None:
    """Say one sentence from now on, until `unguard`."""
    for stream in range(3):
        try:
            os.fstat(stream)
        except OSError:  # closed: the next file to be opened would be taken for the output
            os.open(os.devnull, os.O_RDWR)
    if signal.getsignal(signal.SIGINT) is _SIGNAL_BEFORE:
        signal.signal(signal.SIGINT, _interrupted)
    sys.excepthook = _failed


def unguard() -> None:
    """The modules are loaded; `stage.exit_code` says what ends the rest."""
    if signal.getsignal(signal.SIGINT) is _interrupted:
        signal.signal(signal.SIGINT, _SIGNAL_BEFORE)
    sys.excepthook = sys.__excepthook__


def _name() -> str:
    """The command's, as it stands before every sentence of a stage."""
    arguments = [argument for argument in sys.orig_argv if argument.startswith("pipelines.")]
    return arguments[0].removeprefix("pipelines.") if arguments else "pipelines"


def _interrupted(number: int, frame: object) -> None:
    # Not raised: libraries that are being loaded make another error of it, or none.
    os.write(2, f"{_name()}: interrupted before anything was begun\n".encode())
    os._exit(INTERRUPTED)


def _failed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    try:
        from components.runtime.diagnosis import sentence_of

        sentence = sentence_of(error)
    except Exception:  # what could not be loaded may be needed for this too
        sentence = None
    if sentence is None:
        sys.__excepthook__(kind, error, trace)
    else:
        print(f"{_name()}: failed: {sentence}", file=sys.stderr, flush=True)
