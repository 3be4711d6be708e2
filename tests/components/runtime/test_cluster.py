"""Work reaches other processes and comes back, failures are told apart, and nothing is left when a cluster stops."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from components.runtime import cluster
from components.runtime.actors import map_over_actors
from components.runtime.diagnosis import sentence_of
from components.runtime.tries import MAX_TRIES
from core.errors import BadInput, WorkersFailed


class Doubler:
    """An actor whose results differ in their fields from item to item, as real ones do."""

    def __init__(self, offset: int) -> None:
        self.offset = offset

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        found = {"key": item["key"], "value": 2 * item["key"] + self.offset, "process": os.getpid()}
        return found | ({"note": "even"} if item["key"] % 2 == 0 else {"others": [None, "odd"]})


class Failing:
    """An actor whose disk is full, when it is built or at its second item."""

    def __init__(self, at: str) -> None:
        self.at, self.num_done = at, 0
        if at == "start":
            raise OSError(errno.ENOSPC, "No space left on device", "/x/engine")

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        self.num_done += 1
        if self.at == "work" and self.num_done == 2:
            try:
                raise OSError(errno.ENOSPC, "No space left on device", "/x/picture.png")
            except OSError as error:
                raise RuntimeError("the picture was not written") from error
        if self.at == "fault":
            raise KeyError("lost")
        return item


class Mortal:
    """Ends its process in the first so many tries of an item as the item says, or whenever it is built."""

    def __init__(self, folder: str, ends_at_start: bool = False) -> None:
        self.folder = Path(folder)
        if ends_at_start:
            note(self.folder / "starts")
            os.kill(os.getpid(), signal.SIGKILL)

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        if note(self.folder / f"tried-{item['key']}") <= item["deaths"]:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"key": item["key"]}


def note(path: Path) -> int:
    """Count one more in a file that outlives the process."""
    with path.open("ab") as file:
        file.write(b"x")
    return path.stat().st_size


# A driver of its own joins the cluster that RAY_ADDRESS names and prints what a worker there sees of its environment.
LOOK = """
import json, os, sys
from components.runtime import cluster
from components.runtime.actors import map_over_actors
with cluster.start_ray():
    import ray
    print(json.dumps(ray.get(ray.remote(lambda names: {name: os.environ.get(name) for name in names}).remote(sys.argv[1:]))))
"""


def test_every_item_comes_back_once(ray_up: None, tmp_path: Path) -> None:
    items = [{"key": key} for key in range(7)]
    found = sorted(map_over_actors(items, Doubler, {"offset": 1}, 2, tmp_path / "t"), key=lambda result: result["key"])
    assert [result["value"] for result in found] == [1, 3, 5, 7, 9, 11, 13]
    assert found[0]["note"] == "even" and found[1]["others"] == [None, "odd"]
    assert os.getpid() not in {result["process"] for result in found}
    assert list(map_over_actors([], Doubler, {"offset": 1}, 2, tmp_path / "t")) == []
    assert not list(tmp_path.iterdir())


def test_items_whose_process_is_killed_now_and_then_come_back_once(ray_up: None, tmp_path: Path) -> None:
    items = [{"key": key, "deaths": deaths} for key, deaths in enumerate([1, 0, MAX_TRIES - 1, 0])]
    counted = tmp_path / "t" / "item-1"
    counted.parent.mkdir()
    counted.write_bytes(b"." * MAX_TRIES)  # by an earlier run
    results = list(map_over_actors(items, Mortal, {"folder": str(tmp_path)}, 2, tmp_path / "t"))
    assert sorted(result["key"] for result in results) == list(range(4))
    tries = {item["key"]: (tmp_path / f"tried-{item['key']}").stat().st_size for item in items}
    assert tries == {item["key"]: item["deaths"] + 1 for item in items}


def test_processes_that_end_while_they_start_end_the_work(ray_up: None, tmp_path: Path) -> None:
    arguments = {"folder": str(tmp_path), "ends_at_start": True}
    with pytest.raises(WorkersFailed, match=r"ended while it started.*TRANSFUSION_NUM_ACTORS"):
        list(map_over_actors([{"key": 0, "deaths": 0}], Mortal, arguments, 1, tmp_path / "t"))
    assert (tmp_path / "starts").stat().st_size == MAX_TRIES
    assert not (tmp_path / "tried-0").exists()


@pytest.mark.parametrize(("at", "path"), [("start", "/x/engine"), ("work", "/x/picture.png")])
def test_a_full_disk_comes_back_as_a_sentence(
    ray_up: None, at: str, path: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BadInput, match=f"{path}: the disk is full"):
        list(map_over_actors([{"key": key} for key in range(4)], Failing, {"at": at}, 1, tmp_path / "t"))
    said = capfd.readouterr()
    assert not any(word in said.out + said.err for word in ("Traceback", "ERROR", "No space left"))


def test_a_fault_in_an_actor_keeps_its_traceback(ray_up: None, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="KeyError: 'lost'") as caught:
        list(map_over_actors([{"key": 0}], Failing, {"at": "fault"}, 1, tmp_path / "t"))
    assert sentence_of(caught.value) is None


def test_workers_of_a_cluster_joined_know_the_way_to_the_data(ray_up: None, tmp_path: Path) -> None:
    """The cluster's own environment, which its workers inherit, has none of the names."""
    import ray

    assert {"TRANSFUSION_LATENTS", "TRANSFUSION_CACHE", "TRANSFUSION_CACHE_GIB", "AWS_ENDPOINT_URL"} <= set(cluster.FORWARDED)
    names = [name for name in cluster.FORWARDED if name not in os.environ]
    values = {name: f"{name} of the driver" for name in names}
    places = {"RAY_ADDRESS": ray.get_runtime_context().gcs_address, "PYTHONPATH": str(cluster.REPOSITORY)}
    command, environment = [sys.executable, "-c", LOOK, *names, "HOSTNAME_OF_NOBODY"], os.environ | places | values
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    assert json.loads(result.stdout.splitlines()[-1]) == values | {"HOSTNAME_OF_NOBODY": None}


@pytest.mark.parametrize("wanted", ["0", "1"])
def test_its_dashboard_is_on_loopback_and_it_stops_what_it_started(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    ray.shutdown()
    monkeypatch.setenv("TRANSFUSION_RAY_DASHBOARD", wanted)
    before = set(psutil.Process().children(recursive=True))
    with cluster.start_ray():
        family = [child for child in psutil.Process().children(recursive=True) if child not in before]
        names = [" ".join(process.cmdline()) for process in family]
        assert any("gcs_server" in name for name in names) and any("raylet" in name for name in names)
        idle = {"dashboard.py", "log_monitor.py", "monitor.py"}
        started = {word.rpartition("/")[2] for name in names for word in name.split()} & idle
        assert started == ({"dashboard.py"} if wanted == "1" else set())
        node: Any = ray.worker._global_node  # pyright: ignore[reportAttributeAccessIssue]
        folder = Path(node.get_session_dir_path()).parent
        assert folder.exists()
        assert (node.webui_url or "").startswith("127.0.0.1:") == (wanted == "1")
        with cluster.start_ray():  # a block inside a block joins it
            assert ray.is_initialized()
        assert ray.is_initialized()
    assert not ray.is_initialized()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive, [" ".join(process.cmdline()) for process in alive]
    assert not folder.exists()
