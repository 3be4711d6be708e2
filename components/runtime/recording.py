"""A run from its opening to its end: opened or reopened in the store, delivered beside the work, closed on every way out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from components.runtime.credentials import without_secrets
from components.runtime.sender import HASTY, PATIENT, Patience, Sender
from components.runtime.store_failures import failures_explained
from components.runtime.tracking import RunIdentity, Tracker, identity_of, say_on_stderr
from components.runtime.tracking_store import absolute_uri, client_of, experiment_id, is_known, tracking_uri

COMMAND = "python -m pipelines.sync"


def open_run(name: str, *, run_id: str = "", tags: Mapping[str, str] | None = None) -> RunIdentity:
    """Open a run of the experiment, or reopen `run_id`; one that this store does not know is replaced, aloud.

    Call it in the process the user started: git's state is read here. BadInput when the store for a new run does not answer.
    """
    uri = tracking_uri()
    if run_id:
        if is_known(uri, run_id) is not False:
            return identity_of(run_id)
        print(f"tracking: run {run_id} is not in {uri}; a new run is opened", flush=True)
    client = client_of(uri)
    with failures_explained(uri):
        run = client.create_run(experiment_id(client, uri), run_name=name, tags=git_tags() | dict(tags or {}))
    return identity_of(run.info.run_id)


class Sent(NamedTuple):
    """runs: how many are delivered now. left: how many still wait."""

    runs: int
    left: int


@contextmanager
def recorded(identity: RunIdentity, *, say: Callable[[str], None] | None = None) -> Iterator[Tracker]:
    """A tracker whose outbox is delivered beside the block's work; every way out of the block ends the run.

    The run is FINISHED at the block's end, KILLED after an interrupt or SIGTERM, and FAILED after any other exception.
    """
    say = say or say_on_stderr
    tracker = Tracker(identity, say=say)
    tracker.status("RUNNING")
    sender = Sender(tracker.outbox, identity.tracking_uri, identity.run_id, say)
    sender.start()
    status, patience = "FAILED", PATIENT
    try:
        with _termination_raised():
            yield tracker
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status, patience = "KILLED", HASTY
        raise
    finally:
        tracker.status(status)
        if _end(tracker, sender, say, patience) and status == "FINISHED":
            send_pending(Path(identity.pending).parent, say, patience=HASTY)


def send_pending(folder: Path, say: Callable[[str], None], *, patience: Patience = PATIENT, uri: str = "") -> Sent:
    """Deliver what other runs left in `folder` and nobody writes to any more.

    A run whose processes are gone without an end is ended as KILLED. uri: of the store, where it is not the one noted.
    """
    done = left = 0
    for note in sorted(folder.glob("*/run.json")):
        known = json.loads(note.read_text())
        identity = RunIdentity(absolute_uri(uri or known["tracking_uri"]), known["run_id"], str(note.parent))
        tracker = Tracker(identity, say=say)
        with tracker.outbox.without_writers() as alone:
            if not alone or (tracker.outbox.has_ended() and not tracker.outbox.waiting()):
                continue
        if not tracker.outbox.has_ended():
            tracker.status("KILLED")
        sender = Sender(tracker.outbox, identity.tracking_uri, identity.run_id, say)
        sender.start()
        arrived = _end(tracker, sender, say, patience)
        done, left = done + arrived, left + (not arrived)
    return Sent(done, left)


def git_tags() -> dict[str, str]:
    """The commit, branch and cleanness of the working directory, and DVC's experiment name, where there are any."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    name = without_secrets(" ".join(sys.orig_argv[1:]))[:500]
    tags = {"mlflow.source.name": name, "mlflow.source.type": "LOCAL"}
    try:
        commit = git("rev-parse", "HEAD")
    except FileNotFoundError:
        commit = ""
    if commit:
        tags |= {
            "mlflow.source.git.commit": commit,
            "mlflow.source.git.branch": git("rev-parse", "--abbrev-ref", "HEAD"),
        }
        tags["mlflow.source.git.dirty"] = str(bool(git("status", "--porcelain"))).lower()
    dvc = {"dvc.exp_name": os.environ.get("DVC_EXP_NAME"), "dvc.baseline_rev": os.environ.get("DVC_EXP_BASELINE_REV")}
    return tags | {key: value for key, value in dvc.items() if value}


def _end(tracker: Tracker, sender: Sender, say: Callable[[str], None], patience: Patience) -> bool:
    """Wait for the deliveries, say what is left, and tidy up where nothing is."""
    tracker.close()
    if sender.finish(patience):
        tracker.outbox.remove_if_done()
        return True
    say(
        f"tracking: {len(tracker.outbox.waiting())} entries of run {tracker.run_id} have not reached {sender.uri} "
        f"({sender.failure or 'it does not answer'}); they are kept in {tracker.outbox.folder}: "
        f"`{COMMAND}` sends them, and so does the next stage"
    )
    return False


@contextmanager
def _termination_raised() -> Iterator[None]:
    """SIGTERM ends the block as an interrupt does, where nobody else handles it: its default leaves a run RUNNING."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
