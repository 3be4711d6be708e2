"""Runs whose MLflow store goes away: every point arrives once, nobody is kept waiting, and the run ends rightly.

M1 to M5: a real `mlflow server`, killed or stopped at a point of a run. M6: a run that is killed while its server is away.
M7: an SQLite store that others lock or that cannot be written for a while. M8: runs killed at random on SQLite. (M9, the
real train stage, is in killed_training.py.)
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.faults.counts import ROOT, Found, Setting, Trial, counted, misses, total
from benchmarks.faults.recorded_loop import LOSS, PICTURE, PICTURE_EVERY, VALIDATE_EVERY, VALIDATION, loss
from benchmarks.faults.store_server import StoreServer
from components.runtime.tracking_store import client_of

# A call into the tracker that took longer waited for the store: one that is stopped keeps a caller for 10 s and more.
MAX_BLOCKED_S = 5.0
STEP_S = 0.03
PATIENCE_S = 300.0


class Ended(NamedTuple):
    """code: the exit code. said: what it printed on both streams."""

    code: int
    said: str


class Run:
    """A recorded loop in a project folder of its own."""

    def __init__(self, folder: Path, uri: str, *, num_steps: int = 150, step_s: float = STEP_S) -> None:
        self.folder, self.uri, self.num_steps, self.step_s = folder, uri, num_steps, step_s
        folder.mkdir(parents=True, exist_ok=True)
        self.process: subprocess.Popen[str] | None = None
        # The longest call into the tracker, of the processes that came to their end.
        self.blocked_s = 0.0

    def start(self) -> None:
        command = ["benchmarks.faults.recorded_loop", "work", "--steps", str(self.num_steps), "--step-s", str(self.step_s)]
        self.process = self._started(command)

    def wait_for_step(self, step: int) -> None:
        """Until the step is journaled."""
        journal, deadline_s = self.folder / "work/metrics.jsonl", time.monotonic() + PATIENCE_S
        while not journal.exists() or journal.read_bytes().count(b"\n") < step:
            assert self.process is not None
            if self.process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"the loop did not come to step {step}: {self.process.communicate()[0]}")
            time.sleep(0.005)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def end(self) -> Ended:
        assert self.process is not None
        said, _ = self.process.communicate(timeout=PATIENCE_S)
        if self.process.returncode == 0:
            self.blocked_s = max(self.blocked_s, json.loads(said.splitlines()[-1])["blocked_s"])
        return Ended(self.process.returncode, said)

    def sync(self) -> int:
        process = self._started(["pipelines.sync"])
        said, _ = process.communicate(timeout=PATIENCE_S)
        print(said)
        return process.returncode

    @property
    def run_id(self) -> str:
        return json.loads((self.folder / "work/run.json").read_text())["run_id"]

    def pending(self) -> list[Path]:
        return list((self.folder / "mlpending").glob("*/entries.jsonl"))

    def _started(self, command: list[str]) -> subprocess.Popen[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        environment |= {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": self.uri}
        return subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=self.folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )


def judged(run: Run, database: Path, status: str, *, steps: int = 0, problem: str = "") -> Trial:
    """The store's own tables against what the run must have told it. steps: how many were taken, all by default."""
    steps = steps or run.num_steps
    expected = {(LOSS, step, loss(step)) for step in range(1, steps + 1)}
    expected |= {(VALIDATION, step, -loss(step)) for step in range(VALIDATE_EVERY, steps + 1, VALIDATE_EVERY)}
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        rows = connection.execute("SELECT key, step, value FROM metrics WHERE run_uuid = ?", (run.run_id,)).fetchall()
        ((found_status, artifacts),) = connection.execute(
            "SELECT status, artifact_uri FROM runs WHERE run_uuid = ?", (run.run_id,)
        ).fetchall()
    points = [row for row in rows if row[0] in (LOSS, VALIDATION)]
    speeds = {step for key, step, _ in rows if key == "system/tokens_per_s"}
    lost = len(expected - set(points)) + len(set(range(1, steps + 1)) - speeds)
    doubled = len(rows) - len(set(points)) - len(speeds)
    pictures = _pictures(database, artifacts)
    wanted = set(range(PICTURE_EVERY, steps + 1, PICTURE_EVERY))
    lost += len(wanted - set(pictures))
    doubled += len(pictures) - len(set(pictures))
    problems = [problem] if problem else []
    problems += [f"{lost} lost, {doubled} doubled"] if lost or doubled else []
    problems += [f"status {found_status}, not {status}"] if found_status != status else []
    problems += [f"kept waiting for {run.blocked_s:.1f} s"] if run.blocked_s > MAX_BLOCKED_S else []
    return Trial("; ".join(problems), rows_lost=lost, rows_doubled=doubled)


def _pictures(database: Path, artifacts: str) -> list[int]:
    """The step of every whole picture."""
    place = artifacts.removeprefix("file://")
    folder = (
        database.parent / "artifacts" / place.removeprefix("mlflow-artifacts:/") if "mlflow-artifacts" in place else Path(place)
    )
    names = [path.name for path in (folder / "images").glob("*.png")]
    return [int(name.split("+")[2]) for name in names if name.startswith(PICTURE.replace("/", "~"))]


def back_early(setting: Setting) -> Found:
    """M1: killed after a while and started again well before the run ends."""

    def play(run: Run, server: StoreServer) -> Trial:
        (run.folder / "hold").touch()
        run.wait_for_step(20)
        server.kill()
        run.wait_for_step(50)
        server.start()
        (run.folder / "hold").unlink()
        ended = run.end()
        return judged(run, server.database, "FINISHED", problem=_problem(ended, run, left=False))

    return _with_server(setting, "early", play)


def back_late(setting: Setting) -> Found:
    """M2: back only after the run has ended; the command sends what waited."""
    return _back_after_the_end(setting, "late", StoreServer.kill, StoreServer.start)


def never_back(setting: Setting) -> Found:
    """M3: never back: the run ends well, says where everything lies, and the command says the same."""
    # Started in the end only to count what was kept.
    return _back_after_the_end(setting, "never", StoreServer.kill, StoreServer.start, _still_waits)


def stopped_and_woken(setting: Setting) -> Found:
    """M4: SIGSTOP in the middle, SIGCONT before the end."""

    def play(run: Run, server: StoreServer) -> Trial:
        run.wait_for_step(20)
        server.stop()
        run.wait_for_step(120)
        server.wake()
        ended = run.end()
        return judged(run, server.database, "FINISHED", problem=_problem(ended, run, left=False))

    return _with_server(setting, "stopped", play, step_s=0.15)


def stopped_to_the_end(setting: Setting) -> Found:
    """M5: SIGSTOP in the middle and SIGCONT after the end."""
    return _back_after_the_end(setting, "silent", StoreServer.stop, StoreServer.wake)


def killed_in_an_outage(setting: Setting) -> Found:
    """M6: the run is killed while its server is away: started again once it is back, and never started again."""

    def killed_while_away(run: Run, server: StoreServer) -> None:
        run.wait_for_step(20)
        server.kill()
        run.wait_for_step(67)
        run.kill()

    def resumed(run: Run, server: StoreServer) -> Trial:
        killed_while_away(run, server)
        server.start()
        run.start()
        ended = run.end()
        return judged(run, server.database, "FINISHED", problem=_problem(ended, run, left=False))

    def given_up(run: Run, server: StoreServer) -> Trial:
        killed_while_away(run, server)
        steps = (run.folder / "work/metrics.jsonl").read_bytes().count(b"\n")
        server.start()
        problem = _sync(run)
        return judged(run, server.database, "KILLED", steps=steps, problem=problem)

    first = _with_server(setting, "resumed", resumed)
    second = _with_server(setting, "given-up", given_up)
    return Found(total([first.ours, second.ours]), {}, first.missed + second.missed, first.note)


def _back_after_the_end(
    setting: Setting,
    name: str,
    go_away: Callable[[StoreServer], None],
    come_back: Callable[[StoreServer], None],
    meanwhile: Callable[[Run], str] = lambda run: "",
) -> Found:
    """The server goes away at step 20 and is back after the run's end; the command then sends what waited."""

    def play(run: Run, server: StoreServer) -> Trial:
        run.wait_for_step(20)
        go_away(server)
        ended = run.end()
        problem = _problem(ended, run, left=True) or meanwhile(run)
        come_back(server)
        return judged(run, server.database, "FINISHED", problem=problem or _sync(run))

    return _with_server(setting, name, play)


def _still_waits(run: Run) -> str:
    return "" if run.sync() == 1 and run.pending() else "the command did not say that everything still waits"


def _sqlite_run(setting: Setting, name: str, **sizes: Any) -> Run:
    """A run on an SQLite store of its own, whose tables were made in advance: MLflow takes seconds for them."""
    empty = setting.folder / "empty.db"
    if not empty.exists():
        client_of(f"sqlite:///{empty}")
    run = Run(setting.folder / name, "sqlite:///mlflow.db", **sizes)
    shutil.copyfile(empty, run.folder / "mlflow.db")
    return run


def locked_database(setting: Setting) -> Found:
    """M7: SQLite that another program locks for a while, and SQLite that cannot be written for a while."""
    trials = []
    for name in ("locked", "read-only"):
        run = _sqlite_run(setting, name)
        database = run.folder / "mlflow.db"
        run.start()
        run.wait_for_step(20)
        with closing(sqlite3.connect(database, timeout=60)) as connection:
            # Writers of a database whose triggers refuse fail as those of a read-only one do; modes bind no root user.
            connection.execute("BEGIN EXCLUSIVE" if name == "locked" else _FORBID)
            connection.commit() if name != "locked" else None
            run.wait_for_step(100)
            connection.rollback() if name == "locked" else connection.execute("DROP TRIGGER forbid")
            connection.commit()
        ended = run.end()
        problem = _problem(ended, run, left=bool(run.pending())) or (_sync(run) if run.pending() else "")
        trials.append(judged(run, database, "FINISHED", problem=problem))
    return Found(counted(trials), {}, misses(trials))


_FORBID = """
CREATE TRIGGER forbid BEFORE INSERT ON metrics BEGIN SELECT RAISE(ABORT, 'attempt to write a readonly database'); END
"""


def killed_runs(setting: Setting) -> Found:
    """M8: killed at a random step, started again, killed again, and then left to end."""
    trials = []
    for number in range(1 if setting.quick else 20):
        run = _sqlite_run(setting, f"kill-{number}", num_steps=100, step_s=0.01)
        for _ in range(1 if setting.quick else 2):
            run.start()
            run.wait_for_step(_steps_of(run) + int(setting.generator.integers(3, 30)))
            time.sleep(float(setting.generator.uniform(0, 0.1)))
            run.kill()
        run.start()
        ended = run.end()
        problem = _problem(ended, run, left=False)
        trials.append(judged(run, run.folder / "mlflow.db", "FINISHED", problem=problem))
    return Found(counted(trials), {}, misses(trials))


def _steps_of(run: Run) -> int:
    """How many steps the journal will hold when the run goes on: those of its last checkpoint."""
    checkpoint = run.folder / "work/checkpoint"
    return int(checkpoint.read_text()) if checkpoint.exists() else 0


def _with_server(setting: Setting, name: str, play: Callable[[Run, StoreServer], Trial], step_s: float = STEP_S) -> Found:
    with StoreServer(setting.folder / f"{name}-server") as server:
        run = Run(setting.folder / name, server.uri, step_s=step_s)
        run.start()
        try:
            trial = play(run, server)
        finally:
            if run.process is not None and run.process.poll() is None:
                run.kill()
    return Found(counted([trial]), {}, misses([trial]), f"longest call into the tracker {run.blocked_s:.4f} s")


def _problem(ended: Ended, run: Run, *, left: bool) -> str:
    """What is wrong with how the run ended; left: whether something has to wait for the command."""
    if ended.code:
        return f"ended with {ended.code}: {ended.said[-500:]}"
    if bool(run.pending()) != left:
        return f"{'nothing' if left else 'something'} waits: {ended.said[-500:]}"
    if left and not _names_all(ended.said, ("mlpending", "python -m pipelines.sync")):
        return f"it does not say where it waits: {ended.said[-500:]}"
    return ""


def _sync(run: Run) -> str:
    code = run.sync()
    return "" if code == 0 and not run.pending() else f"the command ended with {code} and left {run.pending()}"


def _names_all(text: str, words: Iterable[str]) -> bool:
    return all(word in text for word in words)
