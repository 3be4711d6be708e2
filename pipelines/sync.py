"""Send what an MLflow store that was away did not get: numbers, pictures and ends of runs that wait in mlpending/.

A run whose processes are gone without an end is closed as KILLED; started again, it goes on in the same run. A local store
whose project was copied or moved is told where its pictures and models are now.
"""

from __future__ import annotations

import argparse
import sys

from components.runtime.recording import send_pending
from components.runtime.tracking import pending_folder, say_on_stderr
from components.runtime.tracking_store import check_database, tracking_uri
from core.errors import GateRefused
from core.text import counted
from pipelines.stage import exit_code

EXIT_CODES = "Exit codes: 0 nothing waits any more; 1 something still waits, and it is said why; 130 interrupted."


def main() -> int:
    """Send what waits; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.sync", description=__doc__, epilog=EXIT_CODES)
    parser.add_argument("--uri", default="", help="the store's address, where it moved (default: the one each run began with)")
    arguments = parser.parse_args()
    return exit_code("sync: ", lambda: sync(arguments.uri))


def sync(uri: str) -> None:
    """Send everything that can be sent; GateRefused where some of it still waits."""
    # Once, and not by each run that waits with a sentence of its own; what follows also needs a moved store put right.
    check_database(tracking_uri())
    sent = send_pending(pending_folder(), say_on_stderr, uri=uri)
    # Only now: what one store refuses must not keep the others' runs.
    if sent.left:
        waiting = counted(sent.left, "run still waits", "runs still wait")
        raise GateRefused(f"{waiting} in {pending_folder()}; run this again when their store answers")
    print(f"sync: {counted(sent.runs, 'run')} sent; nothing waits", flush=True)


if __name__ == "__main__":
    sys.exit(main())
