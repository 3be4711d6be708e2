"""Send what an MLflow store that was away did not get: numbers, pictures and ends of runs that wait in mlpending/.

A run whose processes are gone without an end is closed as KILLED; started again, it goes on in the same run.
"""

from __future__ import annotations

import argparse
import sys

from components.runtime.failure import BadInput
from components.runtime.recording import send_pending
from components.runtime.tracking import pending_folder

EXIT_CODES = "Exit codes: 0 nothing waits any more; 1 something still waits, and it is said why; 130 interrupted."


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m pipelines.sync", description=__doc__, epilog=EXIT_CODES)
    parser.add_argument("--uri", default="", help="the store's address, where it moved (default: the one each run began with)")
    arguments = parser.parse_args()
    try:
        sent = send_pending(pending_folder(), lambda line: print(line, file=sys.stderr, flush=True), uri=arguments.uri)
    except BadInput as error:
        print(f"sync: bad input: {error}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print("sync: interrupted; what was not sent is kept, run again to go on", file=sys.stderr, flush=True)
        return 130
    print(f"sync: {sent.runs} runs sent, {sent.left} still waiting", flush=True)
    return int(sent.left > 0)


if __name__ == "__main__":
    sys.exit(main())
