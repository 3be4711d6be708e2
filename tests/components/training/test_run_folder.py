"""Half a checkpoint is never seen, the newest whole one is loaded, by all workers, two are kept, and one process writes."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing

from components.runtime.world import World
from components.training.run_folder import RunFolder, atomic_checkpoint, checkpoints, folder_of, resume, resume_together
from core.errors import BadInput
from core.manifest import read_manifest, write_manifest

KIND = "made-up"


def write(store: Path, step: int) -> Path:
    with atomic_checkpoint(store, step) as partial:
        (partial / "state").write_text(f"after {step}")
        write_manifest(partial, kind=KIND, step=step)
    return folder_of(store, step)


def make(store: Path, step: int) -> Path:
    """As `write`, and nothing is removed, as where kills left more than a run keeps."""
    folder = folder_of(store, step)
    folder.mkdir(parents=True)
    (folder / "state").write_text(f"after {step}")
    write_manifest(folder, kind=KIND, step=step)
    return folder


def spoil(folder: Path) -> None:
    (folder / "state").write_text("something else")


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
    folders = [make(tmp_path, step) for step in generator.permutation(steps).tolist()]
    folders.sort(key=lambda folder: read_manifest(folder, kind=KIND)["step"], reverse=True)
    assert checkpoints(tmp_path) == folders == [folder_of(tmp_path, step) for step in reversed(steps)]
    for folder in folders[:num_broken]:
        spoil(folder)
    said = list[str]()
    assert resume(tmp_path, load, said.append) == [*reversed(steps), 0][num_broken]
    assert sum("is passed over" in line for line in said) == num_broken
    assert sum("resumed from step" in line for line in said) == (num_broken < 6)
    # Where none is whole, all stay.
    assert checkpoints(tmp_path) == (folders if num_broken == 6 else folders[num_broken : num_broken + 2])


def test_two_whole_checkpoints_are_kept(tmp_path: Path) -> None:
    folders = {step: make(tmp_path, step) for step in (1, 2, 3, 4, 5)}
    for step in (3, 5):
        spoil(folders[step])
    assert resume(tmp_path, load, print) == 4
    assert checkpoints(tmp_path) == [folders[4], folders[2]]
    for step, kept in ((6, [6, 4]), (7, [7, 6]), (9, [9, 7])):
        write(tmp_path, step)
        assert checkpoints(tmp_path) == [folder_of(tmp_path, each) for each in kept]
    # A run that begins anew, because nothing could be loaded, writes over what it finds.
    write(tmp_path, 2)
    assert checkpoints(tmp_path) == [folder_of(tmp_path, 2)]


def resume_as(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    world = World(rank, 2, torch.device("cpu"))
    found: list[object] = [resume_together(folder / "empty", load, print, world)]
    found.append(resume_together(folder / "shared", load, print, world))
    try:
        found.append(resume_together(folder / ("shared" if rank == 0 else "of its own"), load, print, world))
    except BadInput as error:
        found.append(str(error))
    (folder / f"found-{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


def test_all_workers_load_the_checkpoint_that_worker_0_chose(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        make(tmp_path / "shared", step)
    spoil(folder_of(tmp_path / "shared", 3))
    make(tmp_path / "of its own", 1)
    torch.multiprocessing.start_processes(resume_as, (tmp_path,), nprocs=2, start_method="spawn")
    found = [json.loads((tmp_path / f"found-{rank}.json").read_text()) for rank in range(2)]
    assert found[0] == [0, 2, 2]
    assert found[1][:2] == [0, 2]
    assert "worker 1 cannot load the checkpoint of step 2" in found[1][2] and "\n" not in found[1][2]


def test_a_checkpoint_that_was_broken_off_is_none_and_does_not_hinder_the_next(tmp_path: Path) -> None:
    write(tmp_path, 1)

    def broken_off() -> None:
        with atomic_checkpoint(tmp_path, 2) as partial:
            (partial / "state").write_text("half of wh")
            (partial / "left over").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"], "nothing of it takes up room"
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
        with run.writer_lock(), pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_lines_are_kept_in_order_beside_what_else_the_run_keeps(tmp_path: Path) -> None:
    run = RunFolder(folder=tmp_path)
    assert run.newest_step() == 0
    write(run.store, 30)
    write(run.store, 4)
    write(run.store, 200)
    assert run.newest_step() == 200
    run.say("a line")
    run.say("another")
    run.say("a third", passes=True)
    assert run.lines.read_bytes() == b"a line\nanother\na third\r\n"
    assert len({run.store, run.finished, run.lines}) == 3
