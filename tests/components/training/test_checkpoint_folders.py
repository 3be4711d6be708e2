"""The newest whole checkpoint is loaded, by all workers, and two are kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing

from components.runtime.world import World
from components.training.checkpoint_folders import checkpoints, folder_of, resume, stand
from core.errors import BadInput
from core.manifest import read_manifest, write_manifest

KIND = "made-up"
ALONE = World(0, 1, torch.device("cpu"))


def write(store: Path, step: int) -> Path:
    unfinished = store / "unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "state").write_text(f"after {step}")
    write_manifest(unfinished, kind=KIND, step=step)
    stand(unfinished, step)
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


def check(folder: Path) -> None:
    read_manifest(folder, kind=KIND)


def load(folder: Path) -> None:
    step = int(read_manifest(folder, kind=KIND)["step"])
    assert (folder / "state").read_text() == f"after {step}"


def resumed(store: Path, say: Callable[[str], None] = print, world: World = ALONE) -> int:
    return resume(store, check=check, load=load, say=say, world=world)


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
    assert resumed(tmp_path, said.append) == [*reversed(steps), 0][num_broken]
    assert sum("is passed over" in line for line in said) == num_broken
    assert sum("resumed from step" in line for line in said) == (num_broken < 6)
    # Where none is whole, all stay.
    assert checkpoints(tmp_path) == (folders if num_broken == 6 else folders[num_broken : num_broken + 2])


def test_two_whole_checkpoints_are_kept(tmp_path: Path) -> None:
    folders = {step: make(tmp_path, step) for step in (1, 2, 3, 4, 5)}
    for step in (3, 5):
        spoil(folders[step])
    assert resumed(tmp_path) == 4
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
    found: list[object] = [resumed(folder / name, world=world) for name in ("empty", "shared")]
    try:
        found.append(resumed(folder / ("shared" if rank == 0 else "of its own"), world=world))
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
    assert found[0][:2] == found[1][:2] == [0, 2]
    assert "1 of 2 workers do not see" in found[0][2] and "worker 1 does not see" in found[1][2]
    assert all("step-00000002 as worker 0 does; all workers must see one and the same .work" in each[2] for each in found)


def test_other_failures_than_a_broken_checkpoint_are_not_passed_over(tmp_path: Path) -> None:
    write(tmp_path, 1)
    (write(tmp_path, 2) / "state").unlink()

    with pytest.raises(FileNotFoundError):
        resume(tmp_path, check=lambda folder: (folder / "state").read_bytes(), load=load, say=print, world=ALONE)
