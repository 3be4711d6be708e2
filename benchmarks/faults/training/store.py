"""T9: the MLflow server dies in the middle of a real training, for a minute and for ever: nobody waits, no point is lost."""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.faults.counts import ROOT
from benchmarks.faults.store_server import StoreServer
from benchmarks.faults.training.tiny import CONTEXT, PATIENCE_S, last_step, work
from benchmarks.faults.training.trials import Found, Lab, Trial
from components.runtime.recording import recorded
from components.runtime.tracking import About, Tracker
from components.training.transformer.run import TransformerRun, open_training_run
from core.files import read_json_lines

# A step sleeps, so that an outage of a minute is over before the training is.
NUM_STEPS, AWAY_AT, STEPS_AWAY = 160, 30, 100
# What a call into the tracker may take on a busy machine; one that waits for a store takes ten seconds and more.
LONGEST_CALL_S = 1.0
ABOUT = About(name="a training", params={"train.seed": 17}, params_yaml="train: {seed: 17}\n", note="It loses its store.")


class Times(NamedTuple):
    """calls_s: of each call into the tracker. steps_s: between two reports, by step. points_*: of the store's."""

    calls_s: list[float]
    steps_s: dict[int, float]
    points_lost: int
    points_doubled: int


def store_away(lab: Lab) -> Found:
    """T9: steps during an outage beside steps of a run whose server stays, and every point counted in the store."""
    outage_s = 60.0 if not lab.quick else 4.0
    plain, plain_trial = _trained(lab, "stays", outage_s, away=False, back=True)
    trials, facts = [plain_trial], dict[str, Any]()
    blocked = 0.0
    for name, back in (("returns", True), ("never returns", False)):
        times, trial = _trained(lab, name, outage_s, away=True, back=back)
        trials.append(trial)
        blocked += sum(max(0.0, call_s - LONGEST_CALL_S) for call_s in times.calls_s)
        ratio = _median_away(times) / _median_away(plain)
        facts[f"step_time_ratio, server {name}"] = round(ratio, 3)
        facts[f"longest_call_s, server {name}"] = round(max(times.calls_s), 4)
        facts["points_lost"] = facts.get("points_lost", 0) + times.points_lost
        facts["points_doubled"] = facts.get("points_doubled", 0) + times.points_doubled
    facts |= {"outage_seconds_blocked": round(blocked, 1), "outage_s": outage_s}
    return Found(trials, facts, f"blocked {blocked:.1f} s; {facts}")


def _median_away(times: Times) -> float:
    return statistics.median(times.steps_s[step] for step in range(AWAY_AT + 5, AWAY_AT + STEPS_AWAY - 5))


def _trained(lab: Lab, name: str, outage_s: float, *, away: bool, back: bool) -> tuple[Times, Trial]:
    """One training against a server of its own."""
    run = lab.run(f"T9-{name.replace(' ', '-')}", max_steps=NUM_STEPS)
    with StoreServer(run.folder / "server") as server:
        process = CONTEXT.Process(target=_work, args=(run, server.uri, outage_s / STEPS_AWAY))
        process.start()
        if away:
            _wait(run, AWAY_AT)
            server.kill()
            _wait(run, AWAY_AT + STEPS_AWAY)
            if back:
                server.start()
        process.join(PATIENCE_S)
        missed = "" if process.exitcode == 0 else f"server {name}: ended with {process.exitcode}: {_said(run)}"
        if away:
            if not back:
                server.start()
            # A server that comes back as the run ends gets the rest from the command, as one that came back later does.
            missed = missed or _sync(run, server)
        lost, doubled = _points(run, server.database)
    if lost or doubled:
        missed = missed or f"server {name}: {lost} points lost, {doubled} doubled"
    entries = [entry for entry in read_json_lines(run.journal) if "train/loss" in entry]
    steps_s = {int(two["step"]): (two["time_ms"] - one["time_ms"]) / 1000 for one, two in pairwise(entries)}
    calls_s = json.loads((run.folder / "calls.json").read_text())
    return Times(calls_s, steps_s, lost, doubled), Trial(missed)


def _wait(run: TransformerRun, step: int) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while last_step(run) < step:
        if time.monotonic() > deadline_s:
            raise RuntimeError(_said(run))
        time.sleep(0.02)


def _said(run: TransformerRun) -> str:
    log = run.folder / "said-0.log"
    return log.read_text()[-1500:] if log.exists() else ""


def _work(run: TransformerRun, uri: str, step_s: float) -> None:
    """The stage and its one worker in one process, as recorded_loop.py has them, with the real training."""
    os.chdir(run.folder)
    os.environ["MLFLOW_TRACKING_URI"] = uri
    calls = _time_calls()
    identity = open_training_run(run.folder, about=ABOUT, latents=run.latents, digests={"latents": "a" * 64})
    with recorded(identity):
        work(replace(run, identity=identity), 0, 1, 0, run.folder / "meet", partial(_slow, step_s=step_s), leave=False)
    (run.folder / "calls.json").write_text(json.dumps(calls))


def _slow(run: TransformerRun, rank: int, *, step_s: float) -> None:
    """From now on a step sleeps where it reads its rows."""
    from components.data.loader import PackedRows

    read = PackedRows.batch

    def batch(self: PackedRows, rows: Any, *, step: int, **options: Any) -> Any:
        time.sleep(step_s if step else 0.0)
        return read(self, rows, step=step, **options)

    PackedRows.batch = batch


def _time_calls() -> list[float]:
    """The seconds of every call into the tracker, as they come."""
    found: list[float] = []

    def timed(method: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            started_s = time.monotonic()
            try:
                return method(*arguments, **options)
            finally:
                found.append(time.monotonic() - started_s)

        return call

    for name in ("metrics", "image", "tags"):
        setattr(Tracker, name, timed(getattr(Tracker, name)))
    return found


def _points(run: TransformerRun, database: Path) -> tuple[int, int]:
    """Points of the training's curves that the store lacks, and that it has twice."""
    run_id = json.loads((run.folder / "run.json").read_text())["run_id"]
    query = "SELECT key, step FROM metrics WHERE run_uuid = ?"
    with closing(sqlite3.connect(database, timeout=60)) as connection:
        found = Counter(map(tuple, connection.execute(query, (run_id,))))
    entries = read_json_lines(run.journal)
    wanted = {(name, int(entry["step"])) for entry in entries for name in entry if name.startswith("train/")}
    return len(wanted - found.keys()), sum(count - 1 for count in found.values())


def _sync(run: TransformerRun, server: StoreServer) -> str:
    """What waited is sent by the command; "" where it was."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment = kept | {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": server.uri}
    command = [sys.executable, "-m", "pipelines.sync"]
    ended = subprocess.run(command, cwd=run.folder, env=environment, capture_output=True, text=True, check=False)
    return "" if ended.returncode == 0 else f"pipelines.sync ended with {ended.returncode}: {ended.stdout}{ended.stderr}"
