"""Two programs that take turns: a worker is a process that answers each JSON line it reads with one of its own.

The two sides of a comparison live in environments of their own and keep their models between measurements; only one of them
works at a time, because the other waits for its next line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

Answer = dict[str, Any]


class Worker:
    """One side: a process that runs `serve`. Its stderr is ours, so that what it says of its failure is seen."""

    def __init__(self, command: Sequence[str], *, folder: Path, environment: Mapping[str, str]) -> None:
        """command: the program and its arguments. folder: where it runs. environment: of the process, completely."""
        self._process = subprocess.Popen(
            command, cwd=folder, env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, do: str, **question: Any) -> Answer:
        """Have the handler `do` run with the arguments of `question`. Raises RuntimeError where the worker has died."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **question}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError(f"the worker ended with code {self._process.wait()} when asked to {do}; see above")
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """The end of its input is the worker's end; one that does not take it is killed."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def serve(handlers: Mapping[str, Callable[..., Answer]]) -> None:
    """Answer stdin's lines by the handler that each names, until there are no more."""
    # Libraries print what they like; the answers have the real stdout to themselves.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            question = json.loads(line)
            answer = handlers[question.pop("do")](**question)
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
