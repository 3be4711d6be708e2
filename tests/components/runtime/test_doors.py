"""A cluster of this machine alone is shut to the network and to other users, and to whoever has no token."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from components.runtime import cluster
from components.runtime.actors import map_over_actors
from components.runtime.ray_address import check_address
from components.runtime.workers import run_workers, set_up_worker
from core.errors import BadInput
from tests.listeners import Watch

JOIN = """
from components.runtime import cluster
from components.runtime.actors import map_over_actors
with cluster.start_ray():
    print("joined")
"""


def talking(config: dict[str, Any]) -> None:
    """Two workers that train for a moment: what they say to each other is the sum of their ranks."""
    import torch.distributed

    world = set_up_worker()
    told = torch.zeros(1)
    for _ in range(4):
        told = torch.tensor([float(world.rank + 1)])
        torch.distributed.all_reduce(told)
        time.sleep(0.5)
    (Path(config["folder"]) / f"told-{world.rank}").write_text(f"{told.item():.0f}")


class Echo:
    """An actor that takes a moment."""

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.5)
        return item


# A notebook imports Ray before it calls us.
IMPORTED_BEFORE = """
import ray
from components.runtime import cluster
from tests.listeners import Watch
with Watch() as watch, cluster.start_ray():
    pass
assert watch.seen and watch.open_to_others() == [], watch.open_to_others()
"""


@pytest.fixture(scope="module")
def watch() -> Iterator[Watch]:
    """A running cluster of this machine alone, with the dashboard on, which a user may want, and a look at its ports."""
    with pytest.MonkeyPatch.context() as patch, Watch() as watch:
        patch.setenv("TRANSFUSION_RAY_DASHBOARD", "1")
        with cluster.start_ray():
            yield watch


def tried(address: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A process that tries to join."""
    environment = os.environ | {"RAY_ADDRESS": address, "PYTHONPATH": str(cluster.REPOSITORY), **variables}
    command = [sys.executable, "-c", JOIN]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)


def join(address: str, **variables: str) -> str:
    """What a process says that tries to join, and must be refused."""
    ended = tried(address, **variables)
    assert ended.returncode == 1 and "joined" not in ended.stdout
    last = ended.stderr.splitlines()[-1]
    assert last.startswith(f"core.errors.BadInput: RAY_ADDRESS={address}: "), ended.stderr[-3000:]
    return last


def test_nothing_listens_beyond_loopback(watch: Watch, tmp_path: Path) -> None:
    """While two workers train and two actors answer."""
    folder = cluster.private_folder()
    assert folder is not None
    run_workers(
        talking,
        {"folder": str(tmp_path)},
        num_workers=2,
        store=tmp_path / "run",
        lines=tmp_path / "lines.log",
        reached=lambda: 0,
    )
    assert [(tmp_path / f"told-{rank}").read_text() for rank in range(2)] == ["3", "3"]
    assert len(list(map_over_actors([{"key": key} for key in range(4)], Echo, {}, 2, tmp_path / "tries"))) == 4
    programs = " ".join(listener.program for listener in watch.seen)
    assert all(name in programs for name in ("gcs_server", "raylet", "RayTrainWorker", "dashboard"))  # it sees what there is
    idle = ("DatasetManager", "PlacementGroupCleaner", "PreemptionWatcher")
    assert not any(name in programs for name in idle), "a process that serves nobody here"
    assert watch.open_to_others() == []
    assert [path.read_text() for path in folder.rglob("metrics_export_port_*")] == ["-1"]


def test_a_ray_that_was_imported_before_is_shut_too() -> None:
    environment = os.environ | {"PYTHONPATH": str(cluster.REPOSITORY)}
    for name in cluster.OWN_CLUSTER:
        environment.pop(name, None)
    ended = subprocess.run(
        [sys.executable, "-c", IMPORTED_BEFORE], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-3000:]


def test_nobody_else_reads_what_ray_writes(watch: Watch) -> None:
    folder = cluster.private_folder()
    assert folder is not None and any(folder.rglob("raylet.out"))
    assert folder.stat().st_mode & 0o777 == 0o700 and folder.stat().st_uid == os.getuid()


def test_without_the_token_nobody_joins(watch: Watch) -> None:
    import ray

    address = ray.get_runtime_context().gcs_address
    # Ray asks once a second, twenty times unless it is told otherwise.
    tries = {"RAY_NUM_REDIS_GET_RETRIES": "2"}
    # Ray gives no reason, so that it is the token is seen by what happens with the right one.
    joined = tried(address, **tries)
    assert (joined.returncode, joined.stdout) == (0, "joined\n"), joined.stderr[-3000:]
    for wrong in ({"RAY_AUTH_TOKEN": "f" * 64}, {"RAY_AUTH_MODE": "disabled"}):
        said = join(address, **tries, **wrong)
        assert "cannot be joined" in said and "RAY_AUTH_TOKEN" in said


def test_an_address_where_no_ray_is() -> None:
    """With authentication off, for Ray asks for a token first where it is on."""
    here = {"RAY_AUTH_MODE": "disabled", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as server:
        port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert "is no Ray" in join(f"127.0.0.1:{port}", **here)
        server.shutdown()
    assert "nothing answers" in join(f"127.0.0.1:{port}", **here)
    assert "nothing answers" in join(f"ray://127.0.0.1:{port}", **here)


@pytest.mark.parametrize(
    "address", ["nonsense", "host", "127.0.0.1:port", "http://127.0.0.1:6379", "host:0", "127.0.0.1:99999"]
)
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(BadInput, match="must be host:port"):
        check_address(address)
