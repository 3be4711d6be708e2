"""What libraries expect of the environment that a command is started in, made so where it is not."""

from __future__ import annotations

import getpass
import os
import resource
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from core.errors import BadInput

LOOPBACK = "localhost,127.0.0.1,::1"
# Ray's services and workers open some dozens each, and without them wait for each other for ever.
WANTED_FILES, FEWEST_FILES = 4096, 256


def settle() -> None:
    """Before anything else is begun, for this process and those that it starts."""
    keep_proxy_from_loopback()
    name_user()
    keep_warnings_from_raising()


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
    """Inside the block this process's native code writes its lines nowhere: what it finds comes as an exception too."""
    try:
        kept = os.dup(2)
    except OSError:  # closed before Python began
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


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
