"""Every end of a stage has its exit code and one sentence, and one folder runs a stage once at a time."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

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
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    after = command(workspace, "pipelines.ingest", "--set=ingest.vocab_size=x")
    assert after.returncode == 2, after.stderr  # the lock went with its holder


@pytest.mark.parametrize(("output", "words"), [("full", "the disk is full"), ("closed", "the program that read this output")])
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
