"""T2, T3, T14: the driver killed, one of two workers killed, stopped or stuck, and a node lost; all under Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import psutil

from benchmarks.faults.counts import ROOT
from benchmarks.faults.training.curves import losses_of, retaken
from benchmarks.faults.training.nodes import PATIENCE_S, Nodes
from benchmarks.faults.training.tiny import last_step
from benchmarks.faults.training.trials import Found, Lab, Trial
from components.training.transformer.run import TransformerRun

STEP_TIMEOUT_S = 20.0
STEPS_A_KILL = 8


class Driver:
    """The process that started a run's workers, on a cluster of its own or on nodes."""

    def __init__(self, lab: Lab, run: TransformerRun, size: int, nodes: Nodes | None, *more: object) -> None:
        self.run, self.log = run, run.folder / "driver.log"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
        environment = nodes.environment if nodes else kept | {"PYTHONPATH": str(ROOT)}
        arguments = (lab.project, run.folder.name, size, run.config.max_steps, *more)
        command = [sys.executable, "-m", "benchmarks.faults.training.driver", *map(str, arguments)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)

    def wait_for_step(self, step: int) -> None:
        deadline_s = time.monotonic() + 4 * PATIENCE_S
        while last_step(self.run) < step:
            if self.process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"step {step} is not reached: {self.said()}")
            time.sleep(0.02)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> str:
        """What is wrong with how it ended; "" where nothing is."""
        return f"the driver ended with {code}: {self.said()}" if (code := self.process.wait(4 * PATIENCE_S)) else ""

    def said(self) -> str:
        return self.log.read_text()[-1500:]

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Where a fault was not survived, the driver still runs, and a cluster of its own with it."""
        with suppress(psutil.NoSuchProcess):
            for process in (*psutil.Process(self.process.pid).children(recursive=True), self.process):
                process.kill()
        self.process.wait()


def killed_drivers(lab: Lab) -> Found:
    """T2: SIGKILL to the driver alone; it is started again at once, while its workers may still be there."""
    kills = lab.number(10, 1)
    steps = STEPS_A_KILL * (kills + 1)
    expected, run = lab.reference(1, max_steps=steps), lab.run("T2", max_steps=steps)
    recovered, bits = list[float](), 0
    with Nodes() as nodes:
        nodes.add(2)
        for _ in range(kills):
            at, started_s = last_step(run), time.monotonic()
            with Driver(lab, run, 1, nodes) as driver:
                driver.wait_for_step(at + 1)
                recovered.append(time.monotonic() - started_s)
                driver.wait_for_step(at + int(lab.generator.integers(1, STEPS_A_KILL)))
                time.sleep(float(lab.generator.uniform(0, 0.1)))
                driver.kill()
            bits += retaken(expected.losses, losses_of(run))
        with Driver(lab, run, 1, nodes) as driver:
            missed = driver.end()
    trial = lab.judged(run, expected, missed=missed, bits=bits, recovery_s=sorted(recovered)[len(recovered) // 2])
    return Found([trial] + [Trial(trial.missed, recovery_s=trial.recovery_s)] * (kills - 1), note=f"one run of {steps} steps")


def failing_workers(lab: Lab) -> Found:
    """T3: SIGKILL to one worker of two, again and again; then one that is stopped, and one that keeps Python's lock."""
    kills = lab.number(10, 1)
    steps = STEPS_A_KILL * (kills + 1)
    expected, run = lab.reference(2, max_steps=steps), lab.run("T3", max_steps=steps)
    bits, recovered = 0, list[float]()
    with Driver(lab, run, 2, None) as driver:
        for _ in range(kills):
            driver.wait_for_step(last_step(run) + int(lab.generator.integers(1, STEPS_A_KILL)))
            reached, killed_s = last_step(run), time.monotonic()
            _kill_worker(run, int(lab.generator.integers(2)))
            bits += retaken(expected.losses, losses_of(run))
            driver.wait_for_step(min(reached + 1, steps))
            recovered.append(time.monotonic() - killed_s)
        missed = driver.end()
    if (again := driver.log.read_text().count("start again from step")) < kills:
        missed = missed or f"workers started again {again} times after {kills} kills"
    trial = lab.judged(run, expected, missed=missed, bits=bits, recovery_s=sorted(recovered)[len(recovered) // 2])
    trials = [trial] + [Trial(trial.missed, recovery_s=trial.recovery_s)] * (kills - 1)
    silent = [_silent(lab, kind) for kind in ("stop", "lock")]
    return Found(
        trials + silent, {"step_timeout_s": STEP_TIMEOUT_S}, f"{kills} killed, one stopped, one with Python's lock kept"
    )


def _silent(lab: Lab, kind: str) -> Trial:
    """Worker 1 goes silent in a step: the watchdog must say so, and all start again."""
    steps = 12
    expected, run = lab.reference(2, max_steps=steps), lab.run(f"T3-{kind}", max_steps=steps, step_timeout_s=STEP_TIMEOUT_S)
    with Driver(lab, run, 2, None, STEP_TIMEOUT_S, kind, 9) as driver:
        driver.wait_for_step(8)
        silent_s = time.monotonic()
        driver.wait_for_step(9)
        recovery_s = time.monotonic() - silent_s
        missed = driver.end()
    if "worker 1 on" not in driver.log.read_text():
        missed = missed or f"{kind}: the driver did not say that worker 1 hangs: {driver.said()}"
    return lab.judged(run, expected, missed=missed, recovery_s=recovery_s)


def lost_node(lab: Lab) -> Found:
    """T14: a worker on each of two nodes; one node is lost in the middle, and another one takes its place."""
    steps = 24
    expected, run = lab.reference(2, max_steps=steps), lab.run("T14", max_steps=steps)
    with Nodes() as nodes:
        nodes.add(1)
        second = nodes.add(1)
        with Driver(lab, run, 2, nodes) as driver:
            driver.wait_for_step(8)
            at, seen, lost_s = last_step(run), losses_of(run), time.monotonic()
            nodes.lose(second)
            nodes.add(1)
            driver.wait_for_step(min(at + 1, steps))
            recovery_s = time.monotonic() - lost_s
            missed = driver.end()
    said = driver.log.read_text()
    if "start again from step" not in said:
        missed = missed or f"no worker started again: {said[-500:]}"
    return Found([lab.judged(run, expected, missed=missed, bits=retaken(expected.losses, seen), recovery_s=recovery_s)])


def _kill_worker(run: TransformerRun, rank: int) -> None:
    """By what its watchdog noted."""
    note = Path(run.hangs / f"worker-{rank}.json")
    with suppress(FileNotFoundError, ProcessLookupError):
        os.kill(json.loads(note.read_text())["pid"], 9)
