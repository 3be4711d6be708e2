"""Encoding under SIGKILL, of the stage or of one of its workers, compared byte for byte with encoding left alone.

The stage runs as a user runs it, `python -m pipelines.encode`, in a folder of its own with two workers; it is killed at random
moments and started again until it ends. What it must give was made before by one process that nothing disturbed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Literal, NamedTuple

import numpy as np
import psutil

from benchmarks.data.corpus import Corpus, write_corpus
from components.data.encode.assembly import assemble
from components.data.encode.encoding import PartEncoder, plan, unfinished
from core.files import sha256
from pipelines import encode, paths
from pipelines.params import load

ROOT = Path(__file__).resolve().parents[2]
Target = Literal["driver", "worker"]
PATIENCE_S = 120.0
# A kill comes up to so long after a part was finished: about as long as the next ones take.
MOMENT_S = 0.15


class Kills(NamedTuple):
    """made: kills. starts: of the stage. same: whether the last left the bytes of the undisturbed. seconds: of all starts."""

    made: int
    starts: int
    same: bool
    seconds: float


def drawn(number: int, seed: int) -> list[Target]:
    """`number` kills of either kind in a random order."""
    targets: list[Target] = ["driver", "worker"]
    return np.random.default_rng(seed).permutation(targets * number).tolist()


def killed_and_resumed(
    folder: Path, targets: Sequence[Target], corpus: Corpus, overrides: Sequence[str], *, finish_here: bool
) -> Kills:
    """Encode a made corpus below `folder`, with one kill of each of `targets` in turn.

    finish_here: what the last kill leaves is done by this process, not by the stage. RuntimeError where the stage ended before
    the last kill (give it more documents), or in another way than by a kill.
    """
    write_corpus(folder, corpus)
    expected = _undisturbed(folder, overrides)
    generator, started_s = np.random.default_rng(corpus.seed), time.monotonic()
    left, starts, code = list(targets), 0, -signal.SIGKILL
    while code == -signal.SIGKILL and (left or not finish_here):
        starts += 1
        with (folder / "encode.log").open("a") as log, _stage(folder, overrides, log) as stage:
            while left and _made_progress(folder, stage, generator):
                target = left.pop(0)
                _kill(stage, target, generator)
                if target == "driver":
                    break
            code = stage.wait()
    if code == -signal.SIGKILL and finish_here:
        code = _finish(folder, overrides)
    if code or left:
        raise RuntimeError(f"encode ended with {code} and {len(left)} kills to make; see {folder / 'encode.log'}")
    found = digests(folder / paths.LATENTS)
    return Kills(len(targets), starts, found == expected, time.monotonic() - started_s)


def _undisturbed(folder: Path, overrides: Sequence[str]) -> dict[str, str]:
    """The digests of what one process makes."""
    with contextlib.chdir(folder):
        sources, settings, assembly, _ = encode.inputs(load(ROOT / "params.yaml", overrides))
        encoder = PartEncoder(sources, settings)
        for item in plan(sources, Path("undisturbed")):
            encoder(item)
        assemble(sources, settings, assembly, Path("undisturbed"), Path("undisturbed-latents"))
        return digests(Path("undisturbed-latents"))


def _finish(folder: Path, overrides: Sequence[str]) -> int:
    """Do what is left in this process, without workers."""
    with contextlib.chdir(folder):
        params = load(ROOT / "params.yaml", overrides)
        sources, settings, _, work = encode.inputs(params)
        encoder = PartEncoder(sources, settings)
        for item in unfinished(plan(sources, work)):
            encoder(item)
        encode.main(params)
    return 0


def digests(folder: Path) -> dict[str, str]:
    """Every file below `folder`, by its name there."""
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _stage(folder: Path, overrides: Sequence[str], log: IO[str]) -> subprocess.Popen[str]:
    changes = [word for override in overrides for word in ("--set", override)]
    command = [sys.executable, "-m", "pipelines.encode", "--params", str(ROOT / "params.yaml"), *changes]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TRANSFUSION_NUM_ACTORS": "2"}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, text=True)


def _made_progress(folder: Path, stage: subprocess.Popen[str], generator: np.random.Generator) -> bool:
    """Wait for a part to be finished and a random moment more; False where the stage ended.

    Parts count from when the stage has a worker: one of a stage that was killed may finish its part after it.
    """
    before, deadline_s = None, time.monotonic() + PATIENCE_S
    while stage.poll() is None and (before is None or _num_finished(folder) <= before):
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"encode finished no part in {PATIENCE_S:.0f} s; see {folder / 'encode.log'}")
        if before is None and _workers(stage):
            before = _num_finished(folder)
        time.sleep(0.002)
    time.sleep(float(generator.uniform(0, MOMENT_S)))
    return stage.poll() is None


def _num_finished(folder: Path) -> int:
    return sum(1 for _ in (folder / paths.WORK / "encode").glob("*/*/shard-*.json"))


def _kill(stage: subprocess.Popen[str], target: Target, generator: np.random.Generator) -> None:
    if target == "driver":
        stage.kill()
        return
    workers = _workers(stage)
    if not workers:
        raise RuntimeError("no worker was found to kill")
    workers[int(generator.integers(len(workers)))].kill()


def _workers(stage: subprocess.Popen[str]) -> list[psutil.Process]:
    """Processes of the stage that encode; none where it has just ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [process for process in psutil.Process(stage.pid).children(recursive=True) if _encodes(process)]
    return []


def _encodes(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return "MapWorker" in " ".join(process.cmdline()[:1])
    return False
