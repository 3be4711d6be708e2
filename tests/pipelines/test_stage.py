"""Every end of a stage has its exit code and one sentence, and one folder runs a stage once at a time."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from core.errors import BadInput, GateRefused
from pipelines import stage
from pipelines.params import ParamsError
from tests.pipelines.stage_process import REPOSITORY, start

ENDS = [
    (ParamsError("train.seed = 'x'"), 2, "bad configuration: train.seed = 'x'"),
    (GateRefused("too few rows"), 1, "refused: too few rows"),
    (BadInput("no such corpus"), 1, "bad input: no such corpus"),
    (KeyboardInterrupt(), 130, "interrupted"),
    (OSError(errno.ENOSPC, "No space left on device", "/x"), 1, "failed: /x: the disk is full"),
]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A folder to start a stage in."""
    (tmp_path / "params.yaml").write_bytes((REPOSITORY / "params.yaml").read_bytes())
    return tmp_path


def command(workspace: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A module of pipelines, run to its end."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    line = [sys.executable, "-m", *arguments]
    return subprocess.run(line, cwd=workspace, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize(("error", "code", "words"), ENDS, ids=[type(error).__name__ for error, _, _ in ENDS])
def test_each_end_is_one_sentence(error: BaseException, code: int, words: str, capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        raise error

    assert stage.exit_code("train: ", work) == code
    said = capfd.readouterr().err
    assert said.startswith(f"train: {words}") and said.count("\n") == 1


def test_a_signal_while_modules_are_loaded(workspace: Path) -> None:
    """At whatever moment it comes: `after` is one that is loaded early, late, or last."""
    for after, name, code_of, how in (
        ("components.runtime.diagnosis", "SIGINT", 130, "interrupted"),
        ("numpy", "SIGHUP", 143, "terminated"),
        ("pipelines.ancestry", "SIGINT", 130, "interrupted"),
    ):
        code = (
            "import os, runpy, signal, sys\n"
            "class Interrupt:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            f"        if name == {after!r}:\n"
            f"            os.kill(os.getpid(), signal.{name})\n"
            "sys.meta_path.insert(0, Interrupt())\n"
            "sys.argv, sys.orig_argv = ['-m'], [sys.executable, '-m', 'pipelines.validate']\n"
            "import pipelines\n"
            "runpy.run_module('pipelines.validate', run_name='__main__')\n"
        )
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        line = [sys.executable, "-c", code]
        ended = subprocess.run(line, cwd=workspace, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert (ended.returncode, ended.stderr) == (code_of, f"validate: {how} before anything was begun\n"), after


def test_a_package_that_cannot_be_loaded(workspace: Path) -> None:
    (workspace / "pydantic.py").write_text("raise ImportError('libtorch.so: failed to map segment from shared object')\n")
    ended = command(workspace, "pipelines.ingest")
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1), ended.stderr
    assert ended.stderr.startswith("ingest: failed: memory ran out")
    (workspace / "pydantic.py").write_text("import a_package_that_nobody_has\n")
    ended = command(workspace, "pipelines.ingest")
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1), ended.stderr
    assert "a_package_that_nobody_has is not installed" in ended.stderr and "make setup" in ended.stderr


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_it_is_told_to_end(name: str, workspace: Path) -> None:
    """Twice, as `timeout` does; what fails because of it is no failure of its own."""
    code = (
        "import os, signal, sys, time\n"
        "from pipelines import stage\n"
        "def work():\n"
        "    try:\n"
        f"        os.kill(os.getpid(), signal.{name})\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        f"        os.kill(os.getpid(), signal.{name})\n"
        "        time.sleep(0.1)\n"
        "        if sys.argv[1:] == ['fails']:\n"
        "            raise ValueError('a worker is gone')\n"
        "        if sys.argv[1:] == ['exits']:\n"
        "            sys.exit(1)\n"
        "sys.exit(stage.exit_code('train: ', work))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    for more in ([], ["fails"], ["exits"]):
        line = [sys.executable, "-c", code, *more]
        ended = subprocess.run(line, cwd=workspace, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert (ended.returncode, ended.stderr) == (143, f"train: {stage.TOLD_TO_END}\n")


# A stage with a run and a cluster, whose workers have something to do for as long as anyone waits.
WORKING = """
import sys, time
from components.runtime.cluster import start_ray
from components.runtime.recording import open_run, recorded
from pipelines import stage
def work():
    with recorded(open_run("attempt")), start_ray():
        import ray
        print("started", flush=True)
        ray.get([ray.remote(time.sleep).remote(1000)])
sys.exit(stage.execute("attempt", work))
"""


@pytest.mark.parametrize("moment", ["gcs_server", "started"])
def test_it_is_told_to_end_with_all_its_processes(moment: str, workspace: Path, empty_database: Path) -> None:
    """While Ray starts, and at work: the whole group is told, so that Ray's own processes go too."""
    shutil.copy(empty_database, workspace)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "RAY_"))}
    output = workspace / "output"
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", WORKING],
            cwd=workspace,
            env=kept | {"PYTHONPATH": str(REPOSITORY)},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )

    def begun() -> bool:
        names = [child.name() for child in psutil.Process(process.pid).children(recursive=True)]
        return any(name.startswith(moment) for name in names) or moment in output.read_text()

    while not begun():
        assert process.poll() is None, output.read_text()
        time.sleep(0.02)
    family = psutil.Process(process.pid).children(recursive=True)
    for _ in range(2):  # as `timeout` does
        os.killpg(process.pid, signal.SIGTERM)
        time.sleep(0.05)
    process.wait(timeout=300)
    said = output.read_text().splitlines()
    assert process.returncode == 143, said
    assert said == ["--- attempt", *(["started"] if moment == "started" else []), f"attempt: {stage.TOLD_TO_END}"]
    with closing(sqlite3.connect(workspace / "mlflow.db")) as database:
        assert database.execute("SELECT status FROM runs").fetchall() == [("KILLED",)]
    assert not psutil.wait_procs(family, timeout=60)[1]
    # Ray may make its folders anew as it ends; those, which are empty, go when the next cluster starts.
    left = [path for folder in Path("/tmp").glob(f"trf-{process.pid}-*") for path in folder.rglob("*") if path.is_file()]
    assert not left


def test_an_output_that_was_closed_before(workspace: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    line = f"exec '{sys.executable}' -m pipelines.ingest --set=ingest.seed=x >&-"
    ended = subprocess.run(["sh", "-c", line], cwd=workspace, env=environment, stderr=subprocess.PIPE, text=True, check=False)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr


def test_a_fault_of_the_program_keeps_its_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    assert stage.exit_code("train: ", lambda: print({}["lost"])) == 1
    said = capfd.readouterr().err
    assert "Traceback" in said and "KeyError: 'lost'" in said and said.splitlines()[-1] == f"train: {stage.OURS}"


def test_a_traceback_is_to_be_had(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFUSION_TRACEBACK", "1")
    assert stage.exit_code("", lambda: print(Path("/none/such").read_text())) == 1
    said = capfd.readouterr().err
    assert (
        "Traceback" in said and said.splitlines()[-1] == "failed: /none/such: there is no such file or folder; check the path"
    )


def test_where_there_can_be_no_work_folder(workspace: Path) -> None:
    (workspace / ".work").touch()
    ended = command(workspace, "pipelines.ingest")
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1), ended.stderr
    assert ".work: this stands in the way" in ended.stderr


@pytest.mark.parametrize("content", ["folder", "latin-1"])
def test_parameters_that_cannot_be_read(content: str, workspace: Path) -> None:
    path = workspace / "params.yaml"
    path.unlink()
    path.mkdir() if content == "folder" else path.write_bytes("ingest: café".encode("latin-1"))
    for arguments in (["pipelines.ingest"], ["pipelines.summary", "--check-params"]):
        ended = command(workspace, *arguments)
        assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr
        assert "bad configuration: params.yaml" in ended.stderr


def test_one_folder_runs_a_stage_once_at_a_time(workspace: Path) -> None:
    lock = workspace / ".work/ingest.lock"
    first = start("ingest", workspace, [], num_workers=1)
    try:
        while not (lock.exists() and lock.read_text()):
            assert first.poll() is None, "the stage ended without a lock"
            time.sleep(0.01)
        first.send_signal(signal.SIGSTOP)
        second = command(workspace, "pipelines.ingest")
        assert second.returncode == 1, second.stdout
        assert f"another ingest runs in this folder (process {first.pid})" in second.stderr
        cleaning = command(workspace, "pipelines.clean")
        assert (cleaning.returncode, lock.exists()) == (1, True)
        assert f"another ingest runs in this folder (process {first.pid})" in cleaning.stderr
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    after = command(workspace, "pipelines.ingest", "--set=ingest.vocab_size=x")
    assert after.returncode == 2, after.stderr  # the lock went with its holder


@pytest.mark.parametrize(
    ("output", "words"),
    [("full", "the disk is full"), ("closed", "the program that read this output")],
)
def test_an_output_that_takes_nothing(output: str, words: str, workspace: Path) -> None:
    if output == "full":
        descriptor = os.open("/dev/full", os.O_WRONLY)
    else:
        reading, descriptor = os.pipe()
        os.close(reading)
    line, environment = [sys.executable, "-m", "pipelines.ingest"], os.environ | {"PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(line, cwd=workspace, env=environment, stdout=descriptor, stderr=subprocess.PIPE, text=True)
    os.close(descriptor)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 1 and words in said and said.count("\n") == 1, said
