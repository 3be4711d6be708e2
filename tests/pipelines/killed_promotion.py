"""`python -m pipelines.promote` that ends itself with SIGKILL as it is about to write to the store for the n-th time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Loaded once for all processes that are killed.
LOADED = ["pipelines.promote", "mlflow.tracking.client", "mlflow.store.tracking.sqlalchemy_store", "mlflow.artifacts"]
WRITES = (b"POST", b"PATCH", b"PUT", b"DELETE")


def killed_before_write(number: int, folder: Path, uri: str, arguments: Sequence[str]) -> int:
    """Run the command in a process of its own; its exit code, -9 where it was killed. number: from 1."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    process = context.Process(target=_promote, args=(number, folder, uri, arguments))
    process.start()
    process.join(120)
    assert process.exitcode is not None, "it hangs"
    return process.exitcode


def _promote(number: int, folder: Path, uri: str, arguments: Sequence[str]) -> None:
    os.chdir(folder)
    os.environ["MLFLOW_TRACKING_URI"] = uri
    sys.argv = ["promote", *arguments]
    from pipelines import promote

    writes = 0

    def about_to_write() -> None:
        nonlocal writes
        writes += 1
        if writes == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_audit(event: str, values: Any) -> None:
        # Python says so of every message to a server.
        if event == "http.client.send" and bytes(values[1]).startswith(WRITES):
            about_to_write()

    if uri.startswith("http"):
        sys.addaudithook(on_audit)
    else:
        _on_commit(about_to_write)
    sys.exit(promote.main())


def _on_commit(call: Any) -> None:
    """Before each transaction of the database that wrote something is committed."""
    from sqlalchemy import Connection, Engine, event

    wrote: set[int] = set()

    @event.listens_for(Engine, "before_cursor_execute")
    def _(connection: Connection, cursor: Any, statement: str, *rest: Any) -> None:
        if statement.lstrip().upper().startswith(("INSERT", "UPDATE", "DELETE")):
            wrote.add(id(connection))

    @event.listens_for(Engine, "commit")
    def _(connection: Connection) -> None:
        if id(connection) in wrote:
            wrote.discard(id(connection))
            call()
