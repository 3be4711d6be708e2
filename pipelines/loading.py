"""The time while a command's modules are loaded: what ends it then is one sentence too.

Loading takes seconds, in which nothing of ours runs yet: an interrupt, a lack of memory or a missing package would show
the inside of whatever library is being loaded.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from contextlib import suppress
from types import TracebackType

from components.runtime.termination import SIGNALS, TERMINATED

INTERRUPTED = 130
# Signal -> what Python does at it, where nobody has said otherwise.
_BEFORE = {signal.SIGINT: signal.default_int_handler} | dict.fromkeys(SIGNALS, signal.SIG_DFL)


def guard() -> None:
    """Say one sentence from now on, until `unguard`."""
    for stream in range(3):
        try:
            os.fstat(stream)
        except OSError:  # closed: the next file to be opened would be taken for the output
            os.open(os.devnull, os.O_RDWR)
    for each, before in _BEFORE.items():
        if signal.getsignal(each) is before:
            signal.signal(each, _ended)
    sys.excepthook = _failed
    # What modules are made of is kept anyway: to look for garbage among it takes a seventh of the time of loading.
    gc.disable()


def unguard() -> None:
    """The modules are loaded; `stage.exit_code` says what ends the rest."""
    for each, before in _BEFORE.items():
        if signal.getsignal(each) is _ended:
            signal.signal(each, before)
    sys.excepthook = sys.__excepthook__
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def _name() -> str:
    """The command's, as it stands before every sentence of a stage."""
    arguments = [argument for argument in sys.orig_argv if argument.startswith("pipelines.")]
    return arguments[0].removeprefix("pipelines.") if arguments else "pipelines"


def _ended(number: int, frame: object) -> None:
    how, code = ("interrupted", INTERRUPTED) if number == signal.SIGINT else ("terminated", TERMINATED)
    # Not raised: libraries that are being loaded make another error of it, or none. A terminal that was closed takes no words.
    with suppress(OSError):
        os.write(2, f"{_name()}: {how} before anything was begun\n".encode())
    os._exit(code)


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
