"""Test runs in forks of one process that has the libraries loaded: a run begins at once, where a new process takes seconds.

Nothing of the project is loaded before the fork: what a run imports is what the tree holds.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import signal
import sys
import time
import types
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What the tests load most; one that is missing here is loaded by each run.
LIBRARIES = (
    "hypothesis",
    "numpy",
    "torch",
    "torch._dynamo",
    "PIL.Image",
    "safetensors",
    "tokenizers",
    "onnx",
    "onnxruntime",
    "diffusers.schedulers",
    "diffusers.models.autoencoders.autoencoder_kl",
)
OWN = ("tests", "core", "model", "components", "export", "pipelines", "benchmarks")


def load(libraries: Sequence[str]) -> None:
    """Them, and pytest with its plug-ins."""
    for name in libraries:
        importlib.import_module(name)
    for plugin in entry_points(group="pytest11"):
        plugin.load()
    # What is there already is never collected: the forks need not look at it, and share its memory.
    gc.freeze()


def run_pytest(tree: Path, arguments: Sequence[str], log: Path, limit_s: float | None) -> int | None:
    """Pytest's exit code in `tree`, or None where it was ended after limit_s; its output goes into `log`."""
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        _child(tree, arguments, log)
    deadline_s = time.monotonic() + (limit_s or float("inf"))
    ended, status = 0, 0
    while not ended and time.monotonic() < deadline_s:
        ended, status = os.waitpid(process, os.WNOHANG)
        time.sleep(0 if ended else 0.1)
    _end_group(process)
    if not ended:
        os.waitpid(process, 0)
        return None
    return os.waitstatus_to_exitcode(status)


def _child(tree: Path, arguments: Sequence[str], log: Path) -> None:
    code = 70
    try:
        os.setsid()
        os.chdir(tree)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        _forget_own_modules(tree)
        import pytest

        code = int(pytest.main(list(arguments)))
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        # Past every frame of the parent, whatever was raised.
        os._exit(code)


def _forget_own_modules(tree: Path) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in OWN]:
        del sys.modules[name]
    sys.path[:] = [str(tree), *(entry for entry in sys.path if entry and Path(entry).resolve() != ROOT)]
    sys.path_importer_cache.clear()
    # Byte code is told from its source by size and second; a mutant may have both of its predecessor.
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    # Processes that a test spawns would load the main module once more, and it is not pytest's.
    sys.modules["__main__"] = types.ModuleType("__main__")


def _end_group(process: int) -> None:
    """Whatever the tests left running goes with them."""
    try:
        os.killpg(process, signal.SIGKILL)
    except ProcessLookupError:
        return
