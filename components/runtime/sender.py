"""Delivers an outbox to the tracking store, from a thread beside the work: in order, again and again, each thing once.

A store that fails is asked again every few seconds; whatever waits at the end waits on disk.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from components.runtime.delivery import MAX_METRICS, Delivery, Refused
from components.runtime.diagnosis import first_line, sentence_of
from components.runtime.outbox import LANES, Entry, Outbox, lane_of
from components.runtime.store_failures import explained
from core.errors import BadInput

LOOK_EVERY_S = 0.5
# After a failure; doubled with each further one, up to the last.
RETRY_AFTER_S, MAX_RETRY_AFTER_S = 1.0, 5.0


class Patience(NamedTuple):
    """How long to go on at the end without a delivery, in seconds, with a store that fails and one that says nothing."""

    failing_s: float
    silent_s: float


PATIENT, HASTY = Patience(15.0, 120.0), Patience(3.0, 5.0)


class Unsent(NamedTuple):
    """How many entries the store did not take, and why it took none of the last of them."""

    number: int
    failure: str


class Sender:
    """One run's deliverer. say: where its sentences go. Nothing is sent before `start`."""

    def __init__(self, outbox: Outbox, uri: str, run_id: str, say: Callable[[str], None]) -> None:
        self.outbox, self.uri, self.run_id = outbox, uri, run_id
        self.failure = ""
        self._say, self._said_failure = say, False
        self._delivery = Delivery(outbox.files, uri, run_id)
        self._wake, self._ended, self._done = threading.Event(), threading.Event(), threading.Event()
        self._given_up = threading.Event()
        self._delivered_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"sender-{run_id[:8]}", daemon=True)

    def start(self) -> None:
        """Begin to deliver, in a thread of its own."""
        self._thread.start()

    def finish(self, patience: Patience = PATIENT) -> bool:
        """Wait until everything is delivered or `patience` ends; whether it is. No more is to be appended."""
        self._delivered_s = time.monotonic()
        self._ended.set()
        self._wake.set()
        while not self._done.wait(0.05):
            idle_s = time.monotonic() - self._delivered_s
            if idle_s > (patience.failing_s if self.failure else patience.silent_s):
                self._given_up.set()
                return False
        return not self.outbox.waiting()

    def _run(self) -> None:
        try:
            while not self._given_up.is_set():
                try:
                    self._deliver_what_comes()
                    return
                except OSError as error:  # of the outbox's folder; what the store raises is caught where it is called
                    self._fail(f"{self.outbox.folder} cannot be read ({sentence_of(error) or first_line(error)})")
                self._given_up.wait(RETRY_AFTER_S)
        finally:
            self._done.set()

    def _deliver_what_comes(self) -> None:
        while not self._ended.is_set() and not self.outbox.entries.exists():
            self._wake.wait(LOOK_EVERY_S)
        if self.outbox.entries.exists():
            self._deliver_until_ended()

    def _deliver_until_ended(self) -> None:
        pause_s = RETRY_AFTER_S
        while not self._given_up.is_set():
            with self.outbox.delivering() as mine:
                while mine and not self._given_up.is_set():
                    # Looked at before delivering: what is appended before the end is seen after it.
                    ended = self._ended.is_set()
                    if self._deliver():
                        pause_s = RETRY_AFTER_S
                        if ended:
                            return
                        self._wake.wait(LOOK_EVERY_S)
                    else:
                        # Not cut short by the end, which is no reason to hurry a store that fails.
                        self._given_up.wait(pause_s)
                        pause_s = min(2 * pause_s, MAX_RETRY_AFTER_S)
            self.failure = self.failure or "another process is sending"
            if self._ended.is_set() and not self.outbox.waiting():
                return
            self._given_up.wait(LOOK_EVERY_S)

    def _deliver(self) -> bool:
        """Send what waits; False where the store failed."""
        failures = [failure for lane in LANES if (failure := self._deliver_lane(lane))]
        self.failure = failures[0] if failures else ""
        if self._said_failure and not failures:
            self._said_failure = False
            self._say(f"tracking: {self.uri} answers again and has everything of run {self.run_id} so far")
        return not failures

    def _deliver_lane(self, lane: str) -> str:
        """The sentence of the failure that stopped it, or ""."""
        waiting, end = self.outbox.look(lane)
        try:
            while waiting:
                together = _together(waiting)
                self._send(waiting[:together])
                waiting = waiting[together:]
                if self._given_up.is_set():
                    return self.failure
            self.outbox.mark(lane, end)
        except Exception as error:  # a thread beside the work must not end whatever the store, or its answer, is like
            self._delivery.forget()
            return self._fail(str(error) if isinstance(error, BadInput) else explained(error, self.uri))
        return ""

    def _fail(self, failure: str) -> str:
        """Say it, once until everything is well again."""
        self.failure = failure
        if not self._said_failure:
            self._said_failure = True
            self._say(f"tracking: {failure}; meanwhile everything is kept in {self.outbox.folder} and sent later")
        return failure

    def _send(self, entries: Sequence[Entry]) -> None:
        try:
            self._delivery.send([entry.value for entry in entries])
        except Refused as refusal:
            self._delivery.forget()
            if len(entries) > 1:
                for entry in entries:
                    self._send([entry])
                return
            kept = f"kept in {self.outbox.folder}"
            try:
                self.outbox.set_aside(entries[0], str(refusal))
            except OSError as error:
                kept = f"lost ({sentence_of(error) or first_line(error)})"
            self._say(f"tracking: the store refused an entry of run {self.run_id}, {kept}: {refusal}")
            self.outbox.mark(lane_of(entries[0].value), entries[0].end)  # its file is kept as well
        else:
            self.outbox.mark_delivered(entries[-1])
        self._delivered_s = time.monotonic()


def send_at_once(outbox: Outbox, uri: str, run_id: str, values: Sequence[Mapping[str, Any]], *, for_s: float) -> Unsent:
    """Deliver what never reached the disk, trying for about `for_s`; what then remains is lost."""
    delivery, deadline_s, failure = Delivery(outbox.files, uri, run_id), time.monotonic() + for_s, ""
    count = 0
    for lane in LANES:
        waiting = [Entry(dict(value), 0) for value in values if lane_of(value) == lane]
        while waiting:
            together = _together(waiting)
            try:
                delivery.send([entry.value for entry in waiting[:together]])
            except Exception as error:  # whatever the store is like, the run goes on to its end
                delivery.forget()
                failure = str(error) if isinstance(error, (BadInput, Refused)) else explained(error, uri)
                if not isinstance(error, Refused):
                    if time.monotonic() > deadline_s:
                        break
                    time.sleep(RETRY_AFTER_S)
                    continue
                together, count = 1, count + 1
            waiting = waiting[together:]
        count += len(waiting)
    return Unsent(count, failure)


def _together(waiting: Sequence[Entry]) -> int:
    """How many entries at the beginning go in one call: as many metrics as it takes, one of everything else."""
    if waiting[0].value["kind"] != "metrics":
        return 1
    total = 0
    for index, entry in enumerate(waiting):
        total += len(entry.value.get("values", ()))
        if entry.value["kind"] != "metrics" or (index and total > MAX_METRICS):
            return index
    return len(waiting)
