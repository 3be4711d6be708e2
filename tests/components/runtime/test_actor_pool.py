"""A pool of processes answers every item once, whatever one of them does to the process it is in."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from components.runtime.actor_pool import MAX_FAILED_STARTS, map_over_pool
from components.runtime.diagnosis import sentence_of
from core.errors import BadInput

ENDS = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: os._exit(3),
    "crash": lambda: ctypes.string_at(0),
}
NUM_TRIES = 2


class Mortal:
    """Answers numbers; notes each try in a file, and ends its process for the items of ENDS."""

    def __init__(self, folder: str, ends_at_start: bool = False) -> None:
        self.folder = Path(folder)
        if ends_at_start:
            with (self.folder / "starts").open("a") as file:
                file.write("x")
            os._exit(1)

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        with (self.folder / f"tries-{item['key']}").open("a") as file:
            file.write("x")
        if item["key"] in ENDS:
            ENDS[item["key"]]()
        if item["key"] == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "images/1.png")
        if item["key"] == "wrapped":
            try:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), "images/2.png")
            except OSError as error:
                raise RuntimeError("the picture was not written") from error
        return {"key": item["key"], "process": os.getpid()}


def again_or_never(item: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    tries = item.get("tries", 0) + 1
    return ([item | {"tries": tries}], None) if tries < NUM_TRIES else ([], {"key": item["key"], "given_up": tries})


def test_items_that_end_their_process_are_given_up_and_the_others_answered_once(ray_up: None, tmp_path: Path) -> None:
    keys = ["0", "kill", "1", "2", "exit", "3", "crash", "4", "5", "6"]
    items = [{"key": key} for key in keys]
    results = list(map_over_pool(items, Mortal, {"folder": str(tmp_path)}, 2, again_or_never))
    assert sorted(result["key"] for result in results) == sorted(keys)
    for result in results:
        assert ("given_up" in result) == (result["key"] in ENDS)
        tries = len((tmp_path / f"tries-{result['key']}").read_text())
        assert tries == (NUM_TRIES if result["key"] in ENDS else 1)
    assert os.getpid() not in {result.get("process") for result in results}


def test_what_an_actor_raises_ends_the_work_as_it_was_raised(ray_up: None, tmp_path: Path) -> None:
    items = [{"key": key} for key in ("0", "full", "1")]
    with pytest.raises(OSError, match="No space left") as raised:
        list(map_over_pool(items, Mortal, {"folder": str(tmp_path)}, 1, again_or_never))
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, "images/1.png")
    with pytest.raises(RuntimeError, match="the picture was not written") as raised:
        list(map_over_pool([{"key": "wrapped"}], Mortal, {"folder": str(tmp_path)}, 1, again_or_never))
    assert "images/2.png" in (sentence_of(raised.value) or "")
    with pytest.raises(FileNotFoundError):
        list(map_over_pool(items, Mortal, {"folder": str(tmp_path / "none")}, 1, again_or_never))
    assert not list(map_over_pool([], Mortal, {"folder": str(tmp_path)}, 1, again_or_never))


def test_processes_that_end_before_they_are_ready_are_not_started_for_ever(ray_up: None, tmp_path: Path) -> None:
    arguments = {"folder": str(tmp_path), "ends_at_start": True}
    with pytest.raises(BadInput, match=r"3 processes in a row ended while they started .*TRANSFUSION_NUM_ACTORS"):
        list(map_over_pool([{"key": "0"}], Mortal, arguments, 1, again_or_never))
    assert len((tmp_path / "starts").read_text()) == MAX_FAILED_STARTS
    assert not (tmp_path / "tries-0").exists()
