"""Whatever a worker hangs in, all workers end, and what they leave says which one it was; what may take long is waited for."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import re
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
import torch.distributed

from components.runtime.world import World
from components.training import watchdog as module
from components.training.trainer import Every, Trainer
from components.training.watchdog import Watchdog, hang, stopped_ended

TIMEOUT_S, FAULTY_STEP, LAST_STEP = 2.0, 3, 6
CPU = torch.device("cpu")
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__, "torch.distributed"])


class Adding(Trainer):
    """A training whose steps only wait for each other; worker 1 does something else in one of them."""

    remedy = "none"

    def __init__(self, world: World, fault: str) -> None:
        super().__init__(LAST_STEP if (fault, world.rank) != ("ends", 1) else FAULTY_STEP)
        self.world, self.fault = world, fault

    def train_step(self, step: int) -> torch.Tensor:
        if step == FAULTY_STEP and self.world.rank == 1:
            misbehave(self.fault)
        if step == FAULTY_STEP and self.fault == "crossed":
            torch.distributed.recv(torch.zeros(1), src=1 - self.world.rank)
        return self.world.all_reduce(torch.ones(1, dtype=torch.float64))


def misbehave(fault: str) -> None:
    if fault == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif fault == "locked":
        ctypes.PyDLL(None).sleep(3600)  # in C, and Python's lock is kept
    elif fault == "loops":
        while True:
            time.sleep(0.01)
    elif fault == "fails":
        raise ValueError("no more")


def work(folder: Path, fault: str, rank: int, size: int) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    world = World(rank, size, CPU)
    trainer = Adding(world, fault)
    # What takes long is allowed to, and so are the steps of those that wait for it.
    long = Every(4, lambda _: time.sleep(1.5 * TIMEOUT_S if rank == 0 and fault == "nothing" else 0.0), and_last=False)
    with Watchdog(folder / "hangs", world, TIMEOUT_S) as watchdog:
        trainer.run(watchdog.over(trainer, [long]), first_step=1)
    if fault == "ends" and rank == 1:
        time.sleep(3600)  # as Ray keeps the process of a worker that has ended


def started(folder: Path, fault: str) -> list[BaseProcess]:
    folder.mkdir(exist_ok=True)
    processes: list[BaseProcess] = [CONTEXT.Process(target=work, args=(folder, fault, rank, 2)) for rank in range(2)]
    for process in processes:
        process.start()
    return processes


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("stopped", r"worker 1 on \S+ hangs in step 3 \(its process is stopped, or gone"),
        ("locked", r"worker 1 on \S+ hangs in step 3 \(at \S+test_watchdog\.py:\d+ in misbehave"),
        ("loops", r"worker 1 on \S+ hangs in step 3 \(at \S+test_watchdog\.py:\d+ in misbehave"),
        ("crossed", r"all workers wait for each other in step 3 \(worker 0 at \S+distributed_c10d\.py:\d+ in recv"),
        ("ends", r"worker 1 has ended, and the others wait for it in step 4"),
        ("fails", r"$"),
        ("nothing", r"$"),
    ],
)
def test_a_hang_ends_all_workers_and_is_said(tmp_path: Path, fault: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE_S", 0.5)
    with stopped_ended(tmp_path / "hangs"):
        processes = started(tmp_path, fault)
        try:
            for process in processes if fault != "ends" else processes[:1]:
                process.join(120)
                assert process.exitcode is not None, "it still hangs"
        finally:
            for process in processes:
                process.kill()
                process.join()
    codes = [process.exitcode for process in processes]
    assert codes == {"nothing": [0, 0], "stopped": [1, -9], "ends": [1, -9]}.get(fault, [1, 1])
    found = hang(tmp_path / "hangs")
    assert re.match(said, found), found
    assert not found or "step_timeout_s" in found
    assert hang(tmp_path / "hangs") == "", "it is said once"


def test_nothing_is_watched_where_the_limit_is_0(tmp_path: Path) -> None:
    trainer, schedule = Adding(World(0, 1, CPU), "nothing"), [Every(4, print)]
    with Watchdog(tmp_path, World(0, 1, CPU), 0.0) as watchdog:
        assert watchdog.over(trainer, schedule) == schedule
    assert not list(tmp_path.iterdir())
