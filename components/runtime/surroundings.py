"""What libraries expect of the environment that a command is started in, made so where it is not."""

from __future__ import annotations

import getpass
import os
import re
import resource
import sys
import tempfile
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from components.runtime.allocator import use_huge_pages
from core.errors import BadInput

LOOPBACK = "localhost,127.0.0.1,::1"
# Ray's services and workers open some dozens each, and without them wait for each other for ever.
WANTED_FILES, FEWEST_FILES = 4096, 256
# A line of Ray's part in C++, and one of gRPC's in it; what is fatal (F) ends the process, and is kept.
NATIVE_LOG = re.compile(rb"\[\d{4}[^\]]* [DIWEC] \d+ \d+\] |[IWE]\d{4} \d\d:\d\d:[\d.:]+ +\d+ \S+:\d+\] ")


def settle() -> None:
    """Before anything else is begun, for this process and those that it starts."""
    keep_proxy_from_loopback()
    name_user()
    keep_warnings_from_raising()
    use_huge_pages()


def keep_proxy_from_loopback() -> None:
    """Ask this machine's own servers directly: the proxy that HTTP_PROXY names leads away from it."""
    named = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if LOOPBACK not in named and named != "*":
        # Under both names: libraries look at one and then the other.
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = f"{named},{LOOPBACK}".lstrip(",")


def name_user() -> None:
    """A container may be run as a user whom its machine does not know; DVC and torch want a name, MLflow a home folder."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = str(os.getuid())
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = os.sep  # as Docker does


def keep_warnings_from_raising() -> None:
    """PYTHONWARNINGS=error would end a stage, and its workers, wherever a library speaks of its next version."""
    if "error" in os.environ.get("PYTHONWARNINGS", ""):
        del os.environ["PYTHONWARNINGS"]
        warnings.simplefilter("ignore")


@contextmanager
def native_lines_dropped() -> Iterator[None]:
    """Inside the block this process's native code writes to a file, and all but Ray's log is passed on when the block ends.

    Where the block fails, the log is passed on too. What Python writes meanwhile, from any thread, is seen at once.
    """
    try:
        kept = os.dup(2)
    except OSError:  # closed before Python began
        yield
        return
    dropped: re.Pattern[bytes] | None = NATIVE_LOG
    with tempfile.TemporaryFile() as written, _python_writes_to(kept):
        os.dup2(written.fileno(), 2)
        try:
            yield
        except Exception:
            dropped = None
            raise
        finally:
            os.dup2(kept, 2)
            written.seek(0)
            for line in written:
                if not (dropped and dropped.match(line)):
                    os.write(2, line)


@contextmanager
def _python_writes_to(descriptor: int) -> Iterator[None]:
    """Inside the block sys.stderr writes there where it wrote to descriptor 2. The descriptor is closed with the last user."""
    replaced = sys.stderr
    stream = open(descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    # Not at the end of the block: a handler of a log that was made in it keeps its stream.
    weakref.finalize(stream, os.close, descriptor)
    if _is_standard(replaced):
        replaced.flush()
        sys.stderr = stream
    try:
        yield
    finally:
        if sys.stderr is stream:
            sys.stderr = replaced


def _is_standard(stream: Any) -> bool:
    """Whether it writes to descriptor 2; a notebook's does not, and there is none where Python began without."""
    try:
        return stream.fileno() == 2
    except (AttributeError, OSError, ValueError):
        return False


def allow_open_files() -> None:
    """Raise this process's limit, as far as the system lets it. BadInput where that is too little for a cluster."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_FILES if hard == resource.RLIM_INFINITY else min(WANTED_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if 0 <= soft < FEWEST_FILES:
        raise BadInput(f"Ray needs {FEWEST_FILES} open files, and this process may open {soft}; raise the limit (ulimit -n)")
