"""Locks, zombies and broken stores. D13: each is refused with a clear sentence, or mended."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.faults.bytes import dvc_environment
from benchmarks.faults.counts import Found, Setting, Trial, counted, misses
from benchmarks.faults.repro import BUSY, digests, project, repro, repro_when_free


def locks_and_zombies(setting: Setting) -> Found:
    """D13: each must say what is wrong, or mend itself; afterwards the outputs are those of an undisturbed run."""
    work = project(setting.folder / "project")
    assert repro(work, "ingest").code == 0
    reference = digests(work)
    cases = CASES[:: len(CASES) // 2] if setting.quick else CASES
    trials = []
    for case in cases:
        with case.disturb(work):
            ended = repro(work, "ingest")
        clear = bool(re.search(case.says, ended.said)) if ended.code else not case.must_refuse
        again = ended if ended.code == 0 else repro_when_free(work, "ingest")
        same = again.code == 0 and digests(work) == reference
        missed = "" if clear and same else f"{case.what}: {'' if clear else ended.said[-300:]} {again.said[-300:] * (not same)}"
        trials.append(Trial(missed, wrong_bytes=int(again.code == 0 and not same)))
    return Found(counted(trials), {}, misses(trials), "refused with a clear sentence, or mended")


class Case(NamedTuple):
    """disturb: a context that sets it up and, at its end, does what the message asks of a user.

    says: what a refusal must name. must_refuse: going on would be wrong; else it may mend itself.
    """

    what: str
    disturb: Callable[[Path], Any]
    says: str
    must_refuse: bool


@contextmanager
def _second_repro(work: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "dvc", "repro", "-s", "-f", "ingest"]
    with _beside(work, command):
        yield


@contextmanager
def _second_stage(work: Path) -> Iterator[None]:
    with _beside(work, [sys.executable, "-m", "pipelines.ingest"]):
        yield


@contextmanager
def _beside(work: Path, command: Sequence[str]) -> Iterator[None]:
    """Another process at work in the folder, from before the block begins until it has ended."""
    import psutil

    lock = work / ".work/ingest.lock"
    lock.unlink(missing_ok=True)
    process = subprocess.Popen(command, cwd=work, env=dvc_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline_s = time.monotonic() + 60
    while not (lock.is_file() and lock.stat().st_size) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    # Stopped in the middle, so that it is at work however fast the other one comes.
    stage = psutil.Process(int(lock.read_text()))
    stage.suspend()
    try:
        yield
    finally:
        stage.resume()
        process.wait(60)


@contextmanager
def _zombie_in_rwlock(work: Path) -> Iterator[None]:
    """The entry of a dvc that was killed and whose parent has not asked how it ended."""
    process = subprocess.Popen(["true"])
    time.sleep(0.3)
    assert Path(f"/proc/{process.pid}/stat").read_text().split()[2] == "Z"
    with _rwlock_entry(work, process.pid):
        yield
    process.wait()


@contextmanager
def _dead_in_rwlock(work: Path) -> Iterator[None]:
    process = subprocess.Popen(["true"])
    process.wait()
    with _rwlock_entry(work, process.pid):
        yield


@contextmanager
def _rwlock_entry(work: Path, process: int) -> Iterator[None]:
    entry = {"write": {str(work / "data/documents"): {"pid": process, "cmd": "dvc repro"}}, "read": {}}
    with _content(work / ".dvc/tmp/rwlock", json.dumps(entry).encode(), restore=b"{}"):
        yield


@contextmanager
def _torn_rwlock(work: Path) -> Iterator[None]:
    with _content(work / ".dvc/tmp/rwlock", b'{"write": {', restore=b"{}"):
        yield


@contextmanager
def _torn_dvc_lock(work: Path) -> Iterator[None]:
    path = work / "dvc.lock"
    content = path.read_bytes()
    # Within a quoted or nested value, so that what is left is not YAML of the right shape.
    with _content(path, content[: content.index(b"outs:") + 30], restore=content):
        yield


@contextmanager
def _store_that_cannot_be_written(work: Path) -> Iterator[None]:
    """A file where DVC's cache has its folder: the user this runs as may be allowed to write anywhere."""
    store = work / ".dvc/cache/files/md5"
    aside = work / ".dvc/aside"
    store.rename(aside)
    store.write_bytes(b"")
    try:
        yield
    finally:
        store.unlink()
        aside.rename(store)


@contextmanager
def _left_lock(work: Path) -> Iterator[None]:
    """The stage's lock file with the number of a process that is gone."""
    process = subprocess.Popen(["true"])
    process.wait()
    (work / ".work/ingest.lock").write_text(str(process.pid))
    yield


@contextmanager
def _half_written_outputs(work: Path) -> Iterator[None]:
    """What a killed stage leaves where nothing cleans up: part files without a manifest, and half a temporary file."""
    shutil.rmtree(work / "data/documents")
    (work / "data/documents/train").mkdir(parents=True)
    (work / "data/documents/train/part-00099.parquet").write_bytes(b"PAR1")
    (work / "data/documents/.manifest.json.1.partial").write_bytes(b"{")
    yield


@contextmanager
def _content(path: Path, data: bytes, *, restore: bytes) -> Iterator[None]:
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(restore)


CASES = (
    Case("zombie in rwlock", _zombie_in_rwlock, r"busy|blocked by", must_refuse=False),
    Case("two dvc repro", _second_repro, r"[Uu]nable to acquire lock|busy|blocked by|runs in this folder", must_refuse=True),
    Case("two of one stage", _second_stage, BUSY, must_refuse=True),
    Case("dead process in rwlock", _dead_in_rwlock, r"rwlock", must_refuse=False),
    Case("torn rwlock", _torn_rwlock, r"rwlock", must_refuse=False),
    Case("torn dvc.lock", _torn_dvc_lock, r"dvc\.lock", must_refuse=False),
    Case("store that cannot be written", _store_that_cannot_be_written, r"cache|files/md5", must_refuse=True),
    Case("stage lock of a dead process", _left_lock, BUSY, must_refuse=False),
    Case("half-written outputs", _half_written_outputs, r"data/documents", must_refuse=False),
)
