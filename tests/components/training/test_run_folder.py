"""A run is finished when its result is whole, one process at a time writes into its folder, and its lines are kept."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from components.training.checkpoint_folders import folder_of
from components.training.run_folder import RunFolder
from core.manifest import write_manifest

KIND = "made-up"


def test_a_run_is_finished_when_its_result_is_whole_and_of_its_kind(tmp_path: Path) -> None:
    run = RunFolder(folder=tmp_path)
    assert not run.is_finished(KIND)
    run.finished.mkdir()
    (run.finished / "weights").write_text("1 2 3")
    assert not run.is_finished(KIND)
    write_manifest(run.finished, kind=KIND)
    assert run.is_finished(KIND)
    assert not run.is_finished("another kind")
    (run.finished / "weights").write_text("1 2 4")
    assert not run.is_finished(KIND)


def test_one_process_at_a_time_writes(tmp_path: Path) -> None:
    run = RunFolder(folder=tmp_path)
    with (tmp_path / "writer.lock").open("w") as other:  # its own open file, as another process has
        with run.writer_lock(), pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_lines_are_kept_in_order_beside_what_else_the_run_keeps(tmp_path: Path) -> None:
    run = RunFolder(folder=tmp_path)
    assert run.newest_step() == 0
    for step in (30, 4, 200):
        folder_of(run.store, step).mkdir(parents=True)
    assert run.newest_step() == 200
    run.say("a line")
    run.say("another")
    run.say("a third", passes=True)
    assert run.lines.read_bytes() == b"a line\nanother\na third\r\n"
    assert len({run.store, run.finished, run.lines}) == 3
