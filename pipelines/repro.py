"""The whole graph, run by DVC in this process, so that the reason why it stops is said in one line and nothing else is.

The stages write where this process does, as they would under `dvc repro`.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
from typing import Any

from components.runtime.diagnosis import first_line, sentence_of
from pipelines import stage

GO_ON = "what is done is kept, and make repro goes on from there"


def main() -> int:
    """Run the graph; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.repro", description=__doc__, epilog=stage.EXIT_CODES)
    parser.add_argument("targets", nargs="*", metavar="STAGE", help="stages to end with (default: all)")
    arguments = parser.parse_args()
    reasons: list[str] = []
    code = stage.exit_code("", lambda: reasons.extend(reproduce(arguments.targets)))
    for reason in reasons:
        print(f"the graph stopped: {reason}; {GO_ON}", file=sys.stderr)
        # DVC turns every exit code of a stage into its own; it stands in its words alone.
        ended = re.search(r"exited with (\d+)", reason)
        code = int(ended[1]) if ended and ended[1] in ("2", "130") else 1
    return code


def reproduce(targets: list[str]) -> list[str]:
    """Bring every stage up to date, or the targets and what they need; returns DVC's reason where it stopped."""
    from dvc.logger import set_loggers_level
    from dvc.repo import Repo

    # Its own lines would stand between those of the stages.
    with set_loggers_level(logging.CRITICAL):
        try:
            with Repo() as repo:
                run: Any = repo.reproduce  # its decorators hide its arguments from the type checker
                run(targets or None)
        except Exception as error:
            reason = _reason(error)
            # What nobody can explain is a fault of the program, and keeps its traceback.
            if reason is None:
                raise
            return [reason]
    return []


def _reason(error: BaseException) -> str | None:
    """DVC's words, the innermost cause last, on one line; None for an exception that is none of DVC's or of storage."""
    if not type(error).__module__.startswith(("dvc", "scmrepo")):
        return sentence_of(error)
    said: list[str] = []
    link: BaseException | None = error
    while link is not None:
        line = " ".join((sentence_of(link) or str(link)).split())
        # An exception and its cause may say the same.
        if line and line not in said:
            said.append(line)
        link = link.__cause__
    reason = first_line(": ".join(said).replace("failed to run: ", ""))
    if "dvc.lock" in reason and not sentence_of(error):
        reason += "; bring it back (git checkout dvc.lock), or remove it, and every stage runs again"
    return reason


if __name__ == "__main__":
    sys.exit(main())
