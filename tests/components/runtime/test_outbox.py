"""Entries survive a kill in the middle of one, are read in order, and go only when nobody needs them any more."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from components.runtime.outbox import Outbox


def numbers(outbox: Outbox, lane: str = "") -> list[int]:
    entries = outbox.look(lane)[0] if lane else outbox.waiting()
    return [entry.value["number"] for entry in entries]


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "run")


def fill(outbox: Outbox, count: int, kind: str = "metrics", **fields: str) -> None:
    for number in range(count):
        outbox.append({"kind": kind, "number": number, **fields})


def test_what_was_delivered_waits_no_more(outbox: Outbox) -> None:
    assert outbox.waiting() == []
    fill(outbox, 5)
    entries = outbox.waiting()
    assert numbers(outbox) == [0, 1, 2, 3, 4]
    outbox.mark_delivered(entries[2])
    assert numbers(outbox) == numbers(Outbox(outbox.folder)) == [3, 4]


def test_half_an_entry_is_none_and_takes_nothing_with_it(outbox: Outbox) -> None:
    fill(outbox, 2)
    outbox.close()
    with outbox.entries.open("ab") as file:
        file.write(b'{"kind": "metrics", "num')
    assert numbers(outbox) == [0, 1]
    # A lane that has read everything has not read the half: the next writer may make a whole line of it.
    outbox.mark("files", outbox.look("files")[1])
    fill(Outbox(outbox.folder), 1)
    assert numbers(outbox) == [0, 1, 0]
    outbox.append({"kind": "artifact", "number": 5, "file": "x"})
    assert numbers(outbox, "files") == [5]
    outbox.mark_delivered(outbox.look("values")[0][-1])
    assert numbers(outbox) == [5]


def test_an_entry_whose_newline_alone_is_missing_counts(outbox: Outbox) -> None:
    fill(outbox, 2)
    outbox.close()
    outbox.entries.write_bytes(outbox.entries.read_bytes()[:-1])
    assert numbers(outbox) == [0, 1]
    fill(Outbox(outbox.folder), 1)
    assert numbers(outbox) == [0, 1, 0]


def test_files_and_values_wait_for_themselves(outbox: Outbox, tmp_path: Path) -> None:
    source = tmp_path / "report"
    source.mkdir()
    (source / "page.html").write_text("as it was")
    fill(outbox, 2)
    outbox.append({"kind": "artifact", "number": 7, "file": outbox.keep(source)})
    fill(outbox, 2)
    (source / "page.html").write_text("as it is now")
    (kept,) = outbox.files.glob("*/report/page.html")
    assert kept.read_text() == "as it was"
    assert (numbers(outbox, "values"), numbers(outbox, "files")) == ([0, 1, 0, 1], [7])
    outbox.mark_delivered(outbox.look("values")[0][-1])
    assert numbers(outbox) == [7]
    outbox.mark_delivered(outbox.look("files")[0][-1])
    assert outbox.waiting() == []
    assert not list(outbox.files.iterdir())


def test_it_goes_when_the_run_has_ended_and_all_is_delivered_and_nobody_writes(outbox: Outbox) -> None:
    writer = Outbox(outbox.folder)
    fill(writer, 1)
    outbox.mark_delivered(outbox.waiting()[-1])
    writer.close()
    assert not outbox.remove_if_done(), "the run goes on"
    writer.append({"kind": "status", "status": "FINISHED"})
    writer.close()
    assert not outbox.remove_if_done(), "the end was not delivered"
    outbox.mark_delivered(outbox.waiting()[-1])
    fill(writer, 0)
    writer.append({"kind": "status", "status": "FINISHED"})
    outbox.mark_delivered(outbox.waiting()[-1])
    assert not outbox.remove_if_done(), "somebody writes"
    writer.close()
    assert outbox.remove_if_done()
    assert not outbox.folder.exists()
    fill(outbox, 1)
    assert numbers(outbox) == [0]


def test_a_run_that_was_opened_again_has_not_ended(outbox: Outbox) -> None:
    assert not outbox.has_ended()
    for status in ("RUNNING", "FAILED", "RUNNING", "FINISHED", "RUNNING", "KILLED"):
        outbox.append({"kind": "status", "status": status})
        fill(outbox, 1)
        assert outbox.has_ended() is (status != "RUNNING")


def test_one_process_at_a_time_delivers(outbox: Outbox) -> None:
    fill(outbox, 1)
    with outbox.delivering() as mine, Outbox(outbox.folder).delivering() as theirs:
        assert mine
        assert not theirs
    with outbox.delivering() as mine:
        assert mine


def test_a_writer_waits_for_a_folder_that_is_being_deleted(outbox: Outbox) -> None:
    fill(outbox, 1)
    outbox.close()
    with outbox.entries.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        outbox.entries.rename(outbox.entries.with_suffix(".gone"))
        outbox.entries.with_suffix(".gone").unlink()
    fill(outbox, 2)
    assert numbers(outbox) == [0, 1]
