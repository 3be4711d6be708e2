"""Each exception of storage, stores and clusters is one sentence with its place and a remedy, and our own faults are none."""

from __future__ import annotations

import errno
import os
import resource
import socket
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from components.data.shards import write_arrays
from components.runtime.diagnosis import sentence_of
from components.runtime.os_errors import CONNECTION, REASONS, WITHOUT_PLACE
from components.runtime.portable import portable
from core.errors import BadInput


def raised_by(call: Callable[[], Any]) -> BaseException:
    """What the call raises."""
    try:
        call()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def sentence(error: BaseException) -> str:
    """Its sentence, which is one line and no traceback."""
    found = sentence_of(error)
    assert found is not None, repr(error)
    assert "\n" not in found and "Traceback" not in found and len(found) < 600
    return found


def write_to_full_disk() -> None:
    """Linux's device that is always full, opened without the rights to make or replace a file."""
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        os.write(descriptor, b"x")
    finally:
        os.close(descriptor)


@contextmanager
def closed_port() -> Iterator[int]:
    """A port of this machine that nobody listens on."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.mark.parametrize("number", sorted(REASONS), ids=errno.errorcode.get)
def test_every_number_of_the_system_names_path_and_remedy(number: int) -> None:
    found = sentence(OSError(number, os.strerror(number), "/corpora/one"))
    assert found.startswith("/corpora/one: ") and "; " in found
    assert sentence(OSError(number, os.strerror(number), "/one", None, "/two")).startswith("/one -> /two: ")
    assert (sentence_of(OSError(number, os.strerror(number))) is None) == (number not in WITHOUT_PLACE)


@pytest.mark.parametrize("number", sorted(CONNECTION), ids=errno.errorcode.get)
def test_every_number_of_the_network(number: int) -> None:
    assert CONNECTION[number] in sentence(OSError(number, os.strerror(number)))


def test_files_as_the_system_refuses_them(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert "the disk is full" in sentence(raised_by(write_to_full_disk))
    assert f"{file / 'below'}: a part of this path is a file" in sentence(raised_by(lambda: (file / "below").mkdir()))
    assert f"{file}: this stands in the way" in sentence(raised_by(file.mkdir))
    assert f"{tmp_path}: this is a folder" in sentence(raised_by(tmp_path.read_text))
    assert f"{tmp_path / 'none'}: there is no such file" in sentence(raised_by((tmp_path / "none").read_text))
    assert "Is a directory" not in sentence(raised_by(lambda: os.open(tmp_path, os.O_WRONLY)))
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    assert "circle" in sentence(raised_by((tmp_path / "circle").read_text))
    assert "too long" in sentence(raised_by((tmp_path / ("n" * 300)).read_text))
    assert "no such file" in sentence(FileNotFoundError("bucket/key"))


def test_no_folder_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/none/tmp", "/none/var"])
    error = raised_by(tempfile._get_default_tempdir)  # pyright: ignore[reportAttributeAccessIssue]
    assert "/none/tmp" in sentence(error) and "TMPDIR" in sentence(error)


@pytest.mark.parametrize(
    ("name", "use"),
    [("queue", "from queue import Queue"), ("queue", "import queue; queue.Queue"), ("model", "import model.loss")],
)
def test_a_file_with_the_name_of_a_module(name: str, use: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    for module in [each for each in sys.modules if each.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    (tmp_path / f"{name}.py").write_text("ours = 1\n")
    said = sentence(raised_by(lambda: exec(use, {})))
    monkeypatch.delitem(sys.modules, name)
    assert said.startswith(f"{tmp_path / name}.py hides the module {name}") and "rename it" in said


def test_safetensors_that_cannot_be_written(tmp_path: Path) -> None:
    """The limit of a process stands for a full disk, whose number differs and nothing else."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        error = raised_by(lambda: save_file({"x": np.zeros(1 << 20)}, tmp_path / "x"))
        placed = raised_by(lambda: write_arrays(tmp_path / "shard", {"x": np.zeros(1 << 20)}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "ulimit -f" in sentence(error)
    assert sentence(portable(placed)).startswith(f"{tmp_path / 'shard'}: the file grew")
    assert "the disk is full" in sentence(SafetensorError(str(error).replace("(os error 27)", "(os error 28)")))


def test_memory() -> None:
    assert "memory ran out" in sentence(raised_by(lambda: np.empty(1 << 60, np.uint8)))
    assert "memory ran out" in sentence(raised_by(lambda: torch.empty(1 << 60, dtype=torch.uint8)))
    assert "CUDA out of memory" in sentence(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB\nmore"))
    assert "for want of memory" in sentence(BrokenProcessPool("A process in the process pool was terminated abruptly"))


def test_databases(tmp_path: Path) -> None:
    import sqlalchemy

    def query(url: str) -> None:
        with sqlalchemy.create_engine(url).begin() as connection:
            connection.execute(sqlalchemy.text("create table t (x)"))

    (tmp_path / "words.db").write_text("no database at all, but words " * 100)
    for url in (f"sqlite:///{tmp_path}/none/mlflow.db", f"sqlite:///{tmp_path}/words.db"):
        assert "mlflow.db or what MLFLOW_TRACKING_URI names" in sentence(raised_by(lambda url=url: query(url)))
    sqlite3.connect(tmp_path / "there.db").close()
    readonly = sqlite3.connect(f"file:{tmp_path}/there.db?mode=ro", uri=True)
    assert "readonly database" in sentence(raised_by(lambda: readonly.execute("create table t (x)")))
    readonly.close()


def test_mlflow() -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    assert "MLFLOW_TRACKING_URI" in sentence(raised_by(lambda: MlflowClient("nonsense://x")))
    secret = MlflowException("API request to http://eve:pass@word@host/api failed\nwith a long tail")
    assert "word" not in sentence(secret) and "://host" in sentence(secret) and "tail" not in sentence(secret)


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    import requests
    import urllib3

    with closed_port() as port:
        url = f"http://127.0.0.1:{port}/x"
        assert str(port) in sentence(raised_by(lambda: requests.get(url, timeout=5)))
        assert "network fails" in sentence(raised_by(lambda: urllib3.request("GET", url, retries=False)))
        assert "nothing listens" in sentence(raised_by(lambda: socket.create_connection(("127.0.0.1", port))))
    assert "no answer came" in sentence(TimeoutError())
    assert "machine cannot be found" in sentence(socket.gaierror(socket.EAI_NONAME, "Name or service not known"))


def test_object_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec
    from moto.server import ThreadedMotoServer

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    def listing(port: int, **keys: str) -> None:
        retries = {"config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 5}, "skip_instance_cache": True}
        fsspec.filesystem("s3", endpoint_url=f"http://127.0.0.1:{port}", **retries, **keys).ls("bucket/none")

    keys = {"key": "key", "secret": "secret"}
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    try:
        port = server.get_host_and_port()[1]
        assert "no such bucket" in sentence(raised_by(lambda: listing(port, **keys)))
        assert "wants credentials" in sentence(raised_by(lambda: listing(port)))
    finally:
        server.stop()
    with closed_port() as port:
        assert "object store" in sentence(raised_by(lambda: listing(port, **keys)))
    assert "cannot be opened" in sentence(raised_by(lambda: fsspec.filesystem("nonsense")))


def test_onnxruntime(tmp_path: Path) -> None:
    import onnxruntime

    (tmp_path / "graph.onnx").write_bytes(b"not a graph at all")
    for name in ("graph.onnx", "none.onnx"):
        assert "dvc repro export" in sentence(raised_by(lambda name=name: onnxruntime.InferenceSession(tmp_path / name)))


def test_ray() -> None:
    from ray import exceptions
    from ray.train import WorkerGroupError
    from ray.train.v2._internal.exceptions import UserExceptionWithTraceback, WorkerGroupStartupTimeoutError

    full = OSError(errno.ENOSPC, "No space left on device", "/x/checkpoint")
    copy = exceptions.RayTaskError("work", "Traceback (most recent call last):\n  line\nOSError", full).as_instanceof_cause()
    for error in (copy, WorkerGroupError("long", {1: UserExceptionWithTraceback(full, "Traceback")})):
        assert sentence(error).startswith("/x/checkpoint: the disk is full")
    refused = exceptions.RayTaskError("build", "Traceback", BadInput("bring tea")).as_instanceof_cause()
    assert sentence(refused) == "bring tea"
    fault = exceptions.RayTaskError("build", "Traceback", KeyError("x")).as_instanceof_cause()
    assert sentence_of(fault) is None
    assert "TRANSFUSION_NUM_WORKERS" in sentence(exceptions.OutOfMemoryError("Task was killed\nlong"))
    assert "RAY_ADDRESS" in sentence(exceptions.GetTimeoutError("Get timed out"))
    assert "infra/README.md" in sentence(exceptions.AuthenticationError("no token"))
    assert "worker process ended" in sentence(exceptions.WorkerCrashedError())
    assert "worker process ended" in sentence(exceptions.ActorDiedError())
    assert "RAY_ADDRESS" in sentence(WorkerGroupStartupTimeoutError(4))


def test_a_fault_of_ours_has_no_sentence() -> None:
    def while_handling() -> None:
        try:
            Path("/none/such").read_text()
        except OSError:
            {}["key"]

    faults = [ValueError("shapes"), TypeError("x"), RuntimeError("mat1 and mat2 shapes"), OSError("x"), AssertionError()]
    assert [sentence_of(error) for error in [*faults, raised_by(while_handling)]] == [None] * 6


def test_a_cause_is_looked_through() -> None:
    def named() -> None:
        try:
            write_to_full_disk()
        except OSError as error:
            raise RuntimeError("cannot write") from error

    assert "the disk is full" in sentence(raised_by(named))
    assert "the disk is full" in sentence(ExceptionGroup("many", [ValueError(), OSError(errno.ENOSPC, "full")]))
