"""A Ray cluster of several nodes on this machine, which asks for a token, started and stopped by process id."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import psutil

from benchmarks.faults.counts import ROOT

PATIENCE_S = 300.0


class Nodes:
    """with Nodes() as nodes: nodes.add(1); ... nodes.environment is what a driver needs to join them."""

    def __init__(self) -> None:
        # Sockets lie in there, whose paths the system keeps short.
        self.folder = Path(tempfile.mkdtemp(prefix="nodes-", dir="/tmp"))
        self.port, self._nodes, self._number = _free_port(), list[psutil.Process](), 0
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
        self._variables = kept | {
            "PYTHONPATH": str(ROOT),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_enable_metrics_collection": "0",
            # Without it no node may join. Ray then takes the machine's address for 127.0.0.1; a token keeps others out.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
            "RAY_prestart_worker_first_driver": "0",
            # As the own cluster of a stage has it: workers would get nothing of a busy machine.
            "RAY_worker_niceness": "0",
            "GLOO_SOCKET_IFNAME": "lo",
            "OMP_WAIT_POLICY": "passive",
            "TRANSFUSION_NUM_WORKERS": "2",
        }

    @property
    def environment(self) -> dict[str, str]:
        """Of a driver."""
        return self._variables | {"RAY_ADDRESS": f"127.0.0.1:{self.port}"}

    def add(self, num_cpus: int) -> psutil.Process:
        """One node more, the first of them the head; its raylet."""
        ray = [str(Path(sys.executable).with_name("ray")), "start", "--num-cpus", str(num_cpus), "--disable-usage-stats"]
        ray += ["--node-ip-address", "127.0.0.1", "--object-store-memory", str(100 * 2**20)]
        if self._nodes:
            ray += ["--address", f"127.0.0.1:{self.port}"]
        else:
            ray += ["--head", "--port", str(self.port), "--include-dashboard", "false", "--temp-dir", str(self.folder / "r")]
        before = set(_raylets(self.folder))
        started = subprocess.run(ray, env=self._variables, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        if started.returncode:
            raise RuntimeError(started.stdout[-2000:] + started.stderr[-2000:])
        (new,) = set(_raylets(self.folder)) - before
        self._nodes.append(new)
        return new

    def lose(self, raylet: psutil.Process) -> None:
        """SIGKILL to a node: its raylet and all processes under it."""
        family = raylet.children(recursive=True)
        for process in (raylet, *family):
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for _ in range(3):
            for process in _of_folder(self.folder):
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL)
            time.sleep(0.5)
        shutil.rmtree(self.folder, ignore_errors=True)


def _of_folder(folder: Path) -> list[psutil.Process]:
    """Processes of this cluster: each has its folder in the command line, or descends from one that has."""
    found = set[psutil.Process]()
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if str(folder) in " ".join(process.cmdline()):
                found |= {process, *process.children(recursive=True)}
    return list(found - {psutil.Process()})


def _raylets(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            command = process.cmdline()
            if command and command[0].endswith("raylet/raylet") and str(folder) in " ".join(command):
                found.append(process)
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
