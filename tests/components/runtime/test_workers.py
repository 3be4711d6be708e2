"""Processes that train together: killed ones start again for as long as they get on, and what one raises arrives whole."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from components.runtime import cluster
from components.runtime.diagnosis import sentence_of
from components.runtime.workers import run_workers, set_up_worker
from core.errors import BadInput, WorkersFailed


def run(function: Any, folder: Path, **options: Any) -> None:
    run_workers(
        function,
        {"folder": str(folder)},
        store=folder / "run",
        lines=folder / "lines.log",
        reached=lambda: len(list(folder.glob("step-*"))),
        **options,
    )


def note(config: dict[str, Any], line: str) -> int:
    """Append a line; how many there were before."""
    with (Path(config["folder"]) / "lines.log").open("a+") as lines:
        lines.write(line + "\n")
        lines.seek(0)
        return len(lines.readlines()) - 1


def killed_once(config: dict[str, Any]) -> None:
    """Worker 1 of two is killed in the first try."""
    world = set_up_worker()
    folder = Path(config["folder"])
    if world.rank == 0:
        torch.distributed.barrier()
        found = {"size": world.size, "device": world.device.type, "precision": torch.get_float32_matmul_precision()}
        (folder / "found.json").write_text(json.dumps(found | {"threads": torch.get_num_threads()}))
        return
    if note(config, "here is worker 1") == 0:
        time.sleep(2)  # a worker that dies while its group is being set up is taken for the controller's own failure
        os.kill(os.getpid(), signal.SIGKILL)
    torch.distributed.barrier()


def killed_after_progress(config: dict[str, Any]) -> None:
    """One step further in the second try, none in the others."""
    if note(config, "tried") == 1:
        (Path(config["folder"]) / "step-1").touch()
    time.sleep(2)
    os.kill(os.getpid(), signal.SIGKILL)


def refusing(config: dict[str, Any]) -> None:
    """Worker 0 fails while worker 1 waits for it."""
    if set_up_worker().rank == 1:
        torch.distributed.barrier()
    note(config, "asked")
    raise BadInput("the corpus is a teapot; bring tea")


def full(config: dict[str, Any]) -> None:
    note(config, "asked")
    Path("/dev/full").write_text("a checkpoint")


def wrapped(config: dict[str, Any]) -> None:
    note(config, "asked")
    try:
        Path("/dev/full").write_text("a checkpoint")
    except OSError as error:
        raise RuntimeError("the checkpoint was not written") from error


class Unportable(Exception):
    """One that pickle cannot bring back."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__(f"{one} is not {other}")


def wrong(config: dict[str, Any]) -> None:
    note(config, "asked")
    raise Unportable(1, 2)


def test_all_workers_start_again_when_one_is_killed(ray_up: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(killed_once, tmp_path, num_workers=2)
    threads = max(1, (os.cpu_count() or 1) // 2)
    found = {"size": 2, "device": cluster.device().type, "precision": "high", "threads": threads}
    assert json.loads((tmp_path / "found.json").read_text()) == found
    output = capfd.readouterr().out
    assert output.count("here is worker 1\n") == 2
    assert "worker 1 ended without a word" in output and "; all workers start again from step 0\n" in output


def test_failures_count_from_the_last_progress(ray_up: None, tmp_path: Path) -> None:
    with pytest.raises(WorkersFailed, match=r"worker 0 hangs in step 7, 2 times without a new checkpoint") as raised:
        run(killed_after_progress, tmp_path, num_workers=1, max_failures=1, hang=lambda: "worker 0 hangs in step 7")
    assert "\n" not in str(raised.value)
    assert (tmp_path / "lines.log").read_text() == "tried\n" * 3


def test_bad_input_and_a_full_disk_end_the_run_at_once(ray_up: None, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as refused:
        run(refusing, tmp_path, num_workers=2)
    assert str(refused.value) == "the corpus is a teapot; bring tea"
    with pytest.raises(OSError, match="No space left") as raised:
        run(full, tmp_path, num_workers=1)
    assert raised.value.errno == errno.ENOSPC
    assert (tmp_path / "lines.log").read_text() == "asked\n" * 2
    # Ray's own handler would end an interrupted stage with exit code 0.
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_an_exception_was_raised_from_arrives_with_it(ray_up: None, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="the checkpoint was not written") as raised:
        run(wrapped, tmp_path, num_workers=1)
    assert "the disk is full" in (sentence_of(raised.value) or "")
    assert (tmp_path / "lines.log").read_text() == "asked\n", "a full disk is not tried again"


def test_a_fault_of_ours_shows_the_workers_traceback_once(ray_up: None, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="Unportable: 1 is not 2") as raised:
        run(wrong, tmp_path, num_workers=1, max_failures=0)
    (traceback,) = raised.value.__notes__
    assert traceback.count("Traceback") == 1 and "in wrong" in traceback and traceback.endswith("Unportable: 1 is not 2\n")
    assert raised.value.__cause__ is None and raised.value.__suppress_context__
    assert (tmp_path / "lines.log").read_text() == "asked\n"
