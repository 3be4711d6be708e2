"""Every way out of a stage ends its run rightly, and what waits for the store, on the disk or beside it, comes through once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from components.runtime.recording import open_run, recorded, send_pending
from components.runtime.sender import Patience
from components.runtime.tracking import RunIdentity, Tracker, pending_folder
from components.runtime.tracking_store import client_of
from core.errors import BadInput, GateRefused
from pipelines.sync import sync
from tests.components.runtime.conftest import ROOT, state_of, wait_until

# Records a point every few milliseconds and goes on until it is ended.
ENDLESS = """
import itertools, sys, time
from components.runtime.recording import open_run, recorded
run = open_run("attempt", run_id=sys.argv[1])
with recorded(run) as tracker:
    for step in itertools.count(int(sys.argv[2])):
        tracker.metrics({"loss": 1 / step}, step, once=True)
        print(step, flush=True)
        time.sleep(0.005)
"""


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BadInput("no"), "FAILED"),
        (GateRefused("no"), "FAILED"),
        (RuntimeError("a fault of ours"), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit(3), "KILLED"),
    ],
)
def test_an_exception_ends_the_run_and_goes_on(store: Path, error: BaseException, status: str) -> None:
    identity = open_run("attempt")

    def fail() -> None:
        with recorded(identity) as tracker:
            tracker.metrics({"loss": 1.0}, 1)
            raise error

    with pytest.raises(type(error)) as raised:
        fail()
    assert raised.value is error
    assert state_of(identity) == (status, [1])
    assert not pending_folder().exists()


def endless(identity: RunIdentity, first: int, last: int) -> subprocess.Popen[str]:
    """The endless process, when it has recorded `last`."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", ENDLESS, identity.run_id, str(first)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= last:
            return process
    raise AssertionError(f"ended with {process.wait()}")


def rest_of(process: subprocess.Popen[str], number: int, before: int) -> int:
    """Signal the process; the last step that it recorded."""
    process.send_signal(number)
    said, _ = process.communicate(timeout=120)
    return int([str(before), *said.split()][-1])


def test_sigterm_and_sigkill(store: Path) -> None:
    identity = open_run("attempt")
    process = endless(identity, 1, 20)
    last = rest_of(process, signal.SIGTERM, 20)
    assert process.returncode == 128 + signal.SIGTERM
    assert state_of(identity) == ("KILLED", list(range(1, last + 1)))

    # SIGKILL leaves no time for anything; the process that goes on from an earlier step sends the rest.
    process = endless(identity, last - 5, last + 30)
    killed_at = rest_of(process, signal.SIGKILL, last + 30)
    assert process.returncode == -signal.SIGKILL
    assert state_of(identity)[0] == "RUNNING"
    with recorded(open_run("attempt", run_id=identity.run_id)) as tracker:
        for step in range(killed_at - 10, killed_at + 10):
            tracker.metrics({"loss": 1 / step}, step, once=True)
    assert state_of(identity) == ("FINISHED", list(range(1, killed_at + 10)))
    assert not pending_folder().exists()


def test_the_next_stage_sends_what_a_killed_run_left(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dead, alive = open_run("attempt"), open_run("another")
    tracker = Tracker(dead)
    tracker.status("RUNNING")
    for step in range(1, 8):
        tracker.metrics({"loss": 1 / step}, step, once=True)
    with recorded(alive):
        pass
    assert state_of(dead) == ("RUNNING", []), "somebody still writes it"
    tracker.close()
    with recorded(alive):
        pass
    assert state_of(dead) == ("KILLED", list(range(1, 8)))
    assert not pending_folder().exists()


def fill_disk(tracker: Tracker) -> None:
    """Let the outbox, which is open, take nothing from now on."""
    assert tracker.outbox._file is not None
    tracker.outbox._file.close()
    tracker.outbox._file = Path("/dev/full").open("ab", buffering=0)  # noqa: SIM115


@pytest.mark.parametrize("how", ["a file", "a full disk"])
@pytest.mark.parametrize("error", [None, BadInput("no")])
def test_what_no_disk_takes_goes_to_the_store_from_memory(
    how: str, error: Exception | None, store: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    identity = open_run("attempt")
    if how == "a file":
        pending_folder().touch()
    with suppress(BadInput), recorded(identity) as tracker:
        if how == "a full disk":
            fill_disk(tracker)
        for step in range(1, 8):
            tracker.metrics({"loss": 1 / step}, step, once=True)
        tracker.params({"seed": 1})
        if error:
            raise error
    assert state_of(identity) == ("FAILED" if error else "FINISHED", list(range(1, 8)))
    assert client_of(identity.tracking_uri).get_run(identity.run_id).data.params == {"seed": "1"}
    text = capfd.readouterr().err
    assert text.count("waits in memory") == 1 and str(pending_folder()) in text and "lost" not in text


def test_a_worker_sends_what_no_disk_takes(store: Path) -> None:
    identity = open_run("attempt")
    pending_folder().touch()
    tracker = Tracker(identity)
    tracker.metrics({"loss": 1.0}, 3, once=True)
    tracker.close()
    assert state_of(identity)[1] == [3]


def test_what_neither_disk_nor_store_takes_is_said_to_be_lost(
    store: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.runtime.recording.PATIENT", Patience(0.1, 60.0))
    identity = open_run("attempt")
    pending_folder().touch()
    with recorded(identity) as tracker:
        tracker.metrics({"loss": 1.0}, 1)
        Path("mlflow.db").rename("elsewhere.db")
        Path("mlflow.db").write_text("no database" * 100)
    text = capfd.readouterr().err
    assert f"3 entries of run {identity.run_id} are lost" in text and "SQLite" in text, text


def test_a_disk_that_fills_up_hinders_no_delivery(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """No new file can be made: neither the lock nor the note of what was delivered."""
    identity = open_run("attempt")
    folder = Path(identity.pending)
    for name in ("delivering.lock", f"delivered.{os.getpid()}"):
        (folder / name).mkdir(parents=True)
    with recorded(identity) as tracker:
        tracker.metrics({"loss": 1.0}, 1, once=True)
        wait_until(lambda: state_of(identity)[1] == [1])
        tracker.metrics({"loss": 1.0}, 2, once=True)
    assert state_of(identity) == ("FINISHED", [1, 2])
    assert capfd.readouterr().err == ""
    assert not pending_folder().exists()


def test_a_broken_note_of_one_run_hinders_no_other(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Empty, half, of other types, binary, a folder and none at all; told the store, the command sends those too."""
    broken = [
        b"",
        b'{"run_id": "a',
        b"[]",
        b"{}",
        b"3",
        b'{"run_id": 1, "tracking_uri": "mlruns"}',
        b"\xff\xfe\x00",
        b"dir",
        None,
    ]
    runs = [open_run("attempt") for _ in range(len(broken) + 1)]
    for identity, content in zip(runs, [*broken, b"right"], strict=True):
        tracker = Tracker(identity)
        tracker.metrics({"loss": 1.0}, 5)
        tracker.close()
        note = Path(identity.pending) / "run.json"
        if content != b"right":
            note.unlink()
        if content == b"dir":
            note.mkdir()
        elif content not in (None, b"right"):
            note.write_bytes(content)
    with recorded(open_run("another")) as tracker:
        tracker.metrics({"loss": 1.0}, 1)
    assert state_of(runs[0]._replace(run_id=tracker.run_id)) == ("FINISHED", [1])
    assert state_of(runs[-1]) == ("KILLED", [5])
    said = capfd.readouterr().err.splitlines()
    for identity in runs[:-1]:
        (line,) = [line for line in said if f"{identity.run_id}/run.json" in line]
        assert "--uri" in line
    with pytest.raises(GateRefused, match=f"{len(broken)} runs still wait"):
        sync("")
    sync("sqlite:///mlflow.db")
    assert [state_of(identity) for identity in runs] == [("KILLED", [5])] * len(runs)
    assert not pending_folder().exists()


def test_a_moved_project_sends_what_waits_to_its_own_store(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = open_run("attempt")
    tracker = Tracker(identity)
    tracker.metrics({"loss": 1.0}, 1)
    tracker.close()
    new = tmp_path / "elsewhere"
    shutil.move(store, new)
    monkeypatch.chdir(new)
    assert send_pending(pending_folder(), print) == (1, 0)
    moved = identity._replace(tracking_uri=f"sqlite:///{new}/mlflow.db")
    assert state_of(moved) == ("KILLED", [1])
