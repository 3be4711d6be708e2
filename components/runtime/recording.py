"""A run from its opening to its end: opened or reopened in the store, delivered beside the work, closed on every way out."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from components.runtime.diagnosis import first_line, sentence_of
from components.runtime.outbox import ENTRIES
from components.runtime.provenance import origin_tags
from components.runtime.sender import HASTY, PATIENT, Patience, Sender
from components.runtime.store_address import check_variables
from components.runtime.store_failures import NO_MLFLOW, failures_explained
from components.runtime.termination import asked, termination_raised
from components.runtime.tracking import (
    NOTE,
    RunIdentity,
    Tracker,
    identity_of,
    noted_run,
    pending_folder,
    safe_tags,
    say_on_stderr,
)
from components.runtime.tracking_store import LATER, client_of, experiment_id, has_ended, is_known, tracking_uri
from core.errors import BadInput
from core.text import counted

COMMAND = "python -m pipelines.sync"


def open_run(name: str, *, run_id: str = "", tags: Mapping[str, str] | None = None) -> RunIdentity:
    """Open a run of the experiment, or reopen `run_id`; one that this store does not know is replaced, aloud.

    Call it in the process the user started: git's state is read here. BadInput when the store for a new run does not answer.
    """
    uri = tracking_uri()
    check_variables()
    if run_id:
        if is_known(uri, run_id) is not False:
            return identity_of(run_id)
        print(f"tracking: run {run_id} is not in {uri}; a new run is opened", flush=True)
    client, every_tag = client_of(uri), safe_tags(origin_tags() | dict(tags or {}))
    with failures_explained(uri):
        run = client.create_run(experiment_id(client, uri), run_name=name, tags=every_tag)
    if not run.info.run_id:
        raise BadInput(f"the tracking store {uri} {NO_MLFLOW}")
    return identity_of(run.info.run_id)


def known_run(run_id: str, *, otherwise: str) -> RunIdentity:
    """The run as it stands; where this store does not know it, a new one of another name, aloud, which ends at once.

    What other runs left is sent first.
    """
    send_pending(pending_folder(), say_on_stderr, patience=HASTY)
    identity = open_run(otherwise, run_id=run_id)
    if identity.run_id != run_id:
        with recorded(identity):
            pass
    return identity


def later_run(name: str, *, tags: Mapping[str, str] | None = None, started_ms: int = 0) -> RunIdentity:
    """A new run that its outbox opens with the first delivery, so that no store need answer now.

    Call it, as `open_run`, in the process the user started. started_ms: when the work began, now by default.
    """
    identity = identity_of(f"{LATER}{uuid.uuid4().hex}")
    tracker = Tracker(identity)
    tracker.opening(name, origin_tags() | dict(tags or {}), started_ms)
    tracker.close()
    return identity


class Sent(NamedTuple):
    """runs: how many are delivered now. left: how many still wait."""

    runs: int
    left: int


@contextmanager
def recorded(identity: RunIdentity, *, say: Callable[[str], None] | None = None) -> Iterator[Tracker]:
    """A tracker whose outbox is delivered beside the block's work; every way out of the block ends the run.

    The run is FINISHED at the block's end, KILLED after an interrupt, SIGTERM or SIGHUP, and FAILED after any other exception.
    """
    say = say or say_on_stderr
    tracker = Tracker(identity, say=say)
    tracker.status("RUNNING")
    sender = Sender(tracker.outbox, identity.tracking_uri, identity.run_id, say)
    sender.start()
    status, patience = "FAILED", PATIENT
    with termination_raised():
        try:
            yield tracker
            status = "FINISHED"
        except (KeyboardInterrupt, SystemExit):
            status, patience = "KILLED", HASTY
            raise
        except Exception:
            if asked():
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
    for outbox in sorted({path.parent for name in (NOTE, ENTRIES) for path in folder.glob(f"*/{name}")}):
        try:
            arrived = _send_left(noted_run(outbox / NOTE, uri), say, patience)
        except (BadInput, OSError) as error:
            say(f"tracking: {sentence_of(error) or first_line(error)}; the others are sent")
            arrived = False
        if arrived is not None:
            done, left = done + arrived, left + (not arrived)
    return Sent(done, left)


def _send_left(identity: RunIdentity, say: Callable[[str], None], patience: Patience) -> bool | None:
    """Whether one run's entries arrived; None where somebody writes them still, or none wait."""
    tracker = Tracker(identity, say=say)
    outbox = tracker.outbox
    with outbox.without_writers() as alone:
        ended = outbox.has_ended()
        if not alone or (ended and not outbox.waiting()):
            return None
    if not ended and not outbox.waiting() and has_ended(identity.tracking_uri, identity.run_id):
        outbox.remove_if_done(ended=True)  # its end went to the store past a disk that was full
        return None
    if not ended:
        tracker.status("KILLED")
    sender = Sender(outbox, identity.tracking_uri, identity.run_id, say)
    sender.start()
    return _end(tracker, sender, say, patience)


def _end(tracker: Tracker, sender: Sender, say: Callable[[str], None], patience: Patience) -> bool:
    """Wait for the deliveries, say what is left, and tidy up where nothing is."""
    tracker.settle()
    try:
        arrived = sender.finish(patience)
        # After what is on disk, so that the run's end comes last.
        ended = tracker.send_held(patience.failing_s)
        if arrived:
            tracker.outbox.remove_if_done(ended=ended)
            return True
        waiting = counted(len(tracker.outbox.waiting()), "entry", "entries")
    except OSError:  # of the outbox's folder; the sender has said which
        tracker.send_held(patience.failing_s)
        waiting = "entries"
    say(
        f"tracking: {waiting} of run {tracker.run_id} have not reached {sender.uri} "
        f"({sender.failure or 'it does not answer'}); they are kept in {tracker.outbox.folder}: "
        f"`{COMMAND}` sends them, and so does the next stage"
    )
    return False
