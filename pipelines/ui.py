"""MLflow's pages of the local store, on this machine alone, after what waits in mlpending/ was sent."""

from __future__ import annotations

import argparse
import errno
import os
import socket
import subprocess
import sys

from components.runtime.tracking_store import SQLITE, check_database, project_folder
from core.errors import BadInput
from pipelines.stage import exit_code

HOST, PORT = "127.0.0.1", 5000


def main() -> int:
    """Serve MLflow's pages where the port is free; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.ui", description=__doc__)
    parser.add_argument("--port", default=str(PORT), help=f"where to listen (default: {PORT})")
    arguments = parser.parse_args()
    return exit_code("ui: ", lambda: show(arguments.port))


def show(port: str) -> None:
    """Replace this process by MLflow's server; BadInput where the port is none or is taken."""
    number = _free_port(port)
    store = f"{SQLITE}{project_folder() / 'mlflow.db'}"
    check_database(store)
    subprocess.run([sys.executable, "-m", "pipelines.sync"], check=False)  # it says what still waits
    server = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--host", HOST, "--port", str(number)]
    # Eight processes more, for jobs of MLflow's own that nothing here asks for.
    os.execve(sys.executable, server, {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | os.environ)


def _free_port(port: str) -> int:
    if not port.isdecimal() or len(port) > 5 or not 0 < int(port) < 65536:
        raise BadInput(f"{port!r} is no port; take a number from 1024 to 65535: make ui PORT=5001")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        try:
            probe.bind((HOST, int(port)))
        except OSError as error:
            reason = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
            raise BadInput(f"port {port} {reason}; take another: make ui PORT={min(int(port), 65534) + 1}") from None
    return int(port)


if __name__ == "__main__":
    sys.exit(main())
