"""Is half a checkpoint never seen, is the newest whole one gone on from, and does one process at a time write?"""

from __future__ import annotations

import fcntl
from pathlib import Path

import numpy as np
import pytest

from components.runtime.files import read_manifest, write_manifest
from components.training.run_folder import RunFolder, checkpoints, folder_of, resume, written_checkpoint

KIND = "made-up"


def write(store: Path, step: int) -> Path:
    with written_checkpoint(store, step, kind=KIND) as partial:
        (partial / "state").write_text(f"after {step}")
    return folder_of(store, step)


def load(folder: Path) -> int:
    step = int(read_manifest(folder, kind=KIND)["step"])
    assert (folder / "state").read_text() == f"after {step}"
    return step


def test_the_newest_whole_checkpoint_is_gone_on_from(tmp_path: Path) -> None:
    seed = int(np.random.default_rng().integers(2**31))
    print(f"seed {seed}")
    generator = np.random.default_rng(seed)
    steps = sorted(generator.choice(10**7, size=6, replace=False).tolist())
    num_broken = int(generator.integers(0, 7))
    folders = [write(tmp_path, step) for step in generator.permutation(steps).tolist()]
    folders.sort(key=lambda folder: read_manifest(folder, kind=KIND)["step"], reverse=True)
    assert checkpoints(tmp_path) == folders == [folder_of(tmp_path, step) for step in reversed(steps)]
    for folder in folders[:num_broken]:
        (folder / "state").write_text("something else")
    said = list[str]()
    assert resume(tmp_path, load, said.append) == [*reversed(steps), 0][num_broken]
    assert sum("is passed over" in line for line in said) == num_broken
    assert sum("resumed from step" in line for line in said) == (num_broken < 6)


def test_a_checkpoint_that_was_broken_off_is_none_and_does_not_hinder_the_next(tmp_path: Path) -> None:
    write(tmp_path, 1)

    def broken_off() -> None:
        with written_checkpoint(tmp_path, 2, kind=KIND) as partial:
            (partial / "state").write_text("half of wh")
            (partial / "left over").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert checkpoints(tmp_path) == [folder_of(tmp_path, 1)]
    assert resume(tmp_path, load, print) == 1
    assert sorted(path.name for path in write(tmp_path, 2).iterdir()) == ["manifest.json", "state"]
    assert resume(tmp_path, load, print) == 2


def test_other_failures_than_a_broken_checkpoint_are_not_passed_over(tmp_path: Path) -> None:
    write(tmp_path, 1)
    (write(tmp_path, 2) / "state").unlink()

    def careless(folder: Path) -> int:
        return len((folder / "state").read_bytes())

    with pytest.raises(FileNotFoundError):
        resume(tmp_path, careless, print)


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
        with run.only_writer(), pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_lines_are_kept_in_order_beside_what_else_the_run_keeps(tmp_path: Path) -> None:
    run = RunFolder(folder=tmp_path)
    run.say("a line")
    run.say("another")
    assert run.lines.read_text() == "a line\nanother\n"
    assert len({run.store, run.finished, run.lines}) == 3
