"""M9: the real train stage killed again and again on SQLite; its MLflow run must hold every reported point once.

The stage and everything it started die at a random moment, and it is started again at once, as a user or DVC would.
"""

from __future__ import annotations

import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import chdir, closing
from pathlib import Path

import psutil

from benchmarks.faults.corpora import encode_here, params_for, write_inputs
from benchmarks.faults.counts import ROOT, Found, Setting, Trial, counted, misses
from components.data.quarantine import validation_facts
from core.files import write_json

NUM_KILLS, NUM_STEPS = 20, 500
SETTINGS = (
    "train.model.preset=tiny",
    "train.model.patch_side=2",
    "train.batch_rows=4",
    "train.warmup_steps=5",
    "train.checkpoint_every_steps=5",
    "train.sample_every_steps=40",
    "train.log_every_steps=1",
    "train.validate_every_steps=7",
    "train.sampling={prompts: [a red three], guidance_scale: 2.0, num_steps: 2}",
)
PATIENCE_S = 600.0


def killed_training(setting: Setting) -> Found:
    """M9: kills at random moments of one run, which then ends; points against the course that the stage reports."""
    work, kills = setting.folder / "work", 2 if setting.quick else NUM_KILLS
    num_steps = 60 if setting.quick else NUM_STEPS
    write_inputs(work, 60)
    quarantine = work / "data/quarantine/latents.jsonl"
    quarantine.touch()
    write_json(work / "reports/validate/latents.json", validation_facts("latents", quarantine, {}))
    with chdir(work):
        encode_here(work / "parts", params_for(overrides=SETTINGS[:2]), work / "data/latents")
    for _ in range(kills):
        process, before = _start(work, num_steps), _reported(work)
        try:
            # At the earliest when it takes steps again; 20 kills do not use up the steps.
            _wait(work, process, before, int(setting.generator.integers(1, 18)))
            time.sleep(float(setting.generator.uniform(0, 0.3)))
        finally:
            _kill(process)
    process = _start(work, num_steps)
    try:
        code = process.wait(PATIENCE_S)
    finally:
        _kill(process)
    if code:
        raise RuntimeError((work / "train.log").read_text()[-2000:])
    trial = _judged(work, num_steps)
    return Found(counted([trial] + [Trial(trial.missed)] * (kills - 1)), {}, misses([trial]), f"{kills} kills of one run")


def _start(work: Path, num_steps: int) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "RAY_"))}
    environment |= {"PYTHONPATH": str(ROOT), "TRANSFUSION_NUM_WORKERS": "1"}
    changes = [f"--set={change}" for change in (*SETTINGS, f"train.max_steps={num_steps}")]
    command = [sys.executable, "-m", "pipelines.train", "--params", str(ROOT / "params.yaml"), *changes]
    with (work / "train.log").open("ab") as log:
        return subprocess.Popen(command, cwd=work, env=environment, stdout=log, stderr=log, start_new_session=True)


def _reported(work: Path) -> int:
    """The last step that the journal holds."""
    steps = [0]
    for journal in work.glob(".work/train/*/metrics.jsonl"):
        for line in journal.read_text().splitlines():
            try:
                steps.append(json.loads(line)["step"])
            except ValueError:
                continue
    return steps[-1]


def _wait(work: Path, process: subprocess.Popen[bytes], before: int, more: int) -> None:
    """Until the run is `more` steps past where it was killed, or in the case of the first, past its start."""
    deadline_s = time.monotonic() + PATIENCE_S
    while _reported(work) < before + more:
        if process.poll() is not None or time.monotonic() > deadline_s:
            raise RuntimeError((work / "train.log").read_text()[-2000:])
        time.sleep(0.01)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the stage and its workers, where it has not ended."""
    if process.poll() is not None:
        return
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue


def _table(work: Path, name: str) -> list[dict[str, str]]:
    with (work / f"reports/train/{name}.csv").open() as file:
        return list(csv.DictReader(file))


def _judged(work: Path, num_steps: int) -> Trial:
    run_id = json.loads((work / "artifacts/train/run.json").read_text())["run_id"]
    with closing(sqlite3.connect(work / "mlflow.db", timeout=30)) as connection:
        rows = connection.execute("SELECT key, step, value FROM metrics WHERE run_uuid = ?", (run_id,)).fetchall()
        ((status,),) = connection.execute("SELECT status FROM runs WHERE run_uuid = ?", (run_id,)).fetchall()
    columns = {
        ("history", "loss"): "train/loss",
        ("history", "text"): "train/loss_text",
        ("validation", "loss"): "validation/loss",
    }
    wanted = {
        (key, int(row["step"]), float(row[name])) for (table, name), key in columns.items() for row in _table(work, table)
    }
    found = {(key, step, float(f"{value:.6g}")) for key, step, value in rows if key in columns.values()}
    lost, doubled = len(wanted - found), len(rows) - len({(key, step) for key, step, _ in rows})
    lost += len(set(range(1, num_steps + 1)) - {step for key, step, _ in rows if key == "system/tokens_per_s"})
    problems = [f"{lost} lost, {doubled} doubled"] if lost or doubled else []
    problems += [f"status {status}"] if status != "FINISHED" else []
    problems += ["something still waits"] if list((work / "mlpending").glob("*/entries.jsonl")) else []
    return Trial("; ".join(problems), rows_lost=lost, rows_doubled=doubled)
