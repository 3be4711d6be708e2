"""A stage started as a user starts it, waited for until it does something, and seen to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.conftest import SOON

REPOSITORY = Path(__file__).resolve().parents[2]


def start(stage: str, workspace: Path, settings: Iterable[str], *, num_workers: int) -> subprocess.Popen[str]:
    """`python -m pipelines.<stage>` in `workspace`, with `settings` changed; no server or cluster of the environment's."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "RAY_"))}
    environment |= SOON | {"PYTHONPATH": str(REPOSITORY), "TRANSFUSION_NUM_WORKERS": str(num_workers)}
    return subprocess.Popen(
        [sys.executable, "-m", f"pipelines.{stage}", *(f"--set={setting}" for setting in settings)],
        cwd=workspace,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def wait_until(process: subprocess.Popen[str], condition: Callable[[], bool], *, timeout_s: float) -> None:
    """Until `condition` holds, which must be before the process ends by itself."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, f"ended with {process.returncode} before it came so far"
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)


def kill_when(process: subprocess.Popen[str], condition: Callable[[], bool], *, timeout_s: float) -> None:
    """SIGKILL once `condition` holds, which must be before the process ends by itself."""
    wait_until(process, condition, timeout_s=timeout_s)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL


def finish(process: subprocess.Popen[str]) -> str:
    """What it printed; it must end well."""
    output, _ = process.communicate(timeout=400)
    print(output)
    assert process.returncode == 0, output
    return output
