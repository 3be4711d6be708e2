"""A training small enough to be killed hundreds of times, and its workers as processes that are forked in a moment.

Workers run components/training/transformer/worker.py as Ray's do, joined by gloo, and write down which rows they read. They are
forked from a process that has loaded all modules and has computed nothing.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import chdir
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from benchmarks.faults.corpora import encode_here, params_for, write_inputs
from components.runtime.tracking import RunIdentity
from components.training.transformer.config import TrainConfig
from components.training.transformer.run import TransformerRun

# Few rows, so that a training of some steps sees the end of an epoch several times.
NUM_DOCUMENTS = 60
SETTINGS = (
    "train.model.preset=tiny",
    "train.model.patch_side=2",
    "train.batch_rows=4",
    "train.max_steps=100000",
    "train.warmup_steps=5",
    "train.checkpoint_every_steps=3",
    "train.sample_every_steps=100000",
    "train.log_every_steps=1",
    "train.validate_every_steps=10",
    "train.held_out_images.num_documents=2",
    "train.sampling={prompts: [a red three], guidance_scale: 2.0, num_steps: 1}",
)
PATIENCE_S = 900.0
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [__name__, "components.training.transformer.worker", "diffusers.models", "torch.distributed.checkpoint"]
)


def tiny_project(folder: Path) -> Path:
    """A folder with all that training reads, as the stages before it leave it."""
    write_inputs(folder, NUM_DOCUMENTS)
    (folder / "data/quarantine/latents.jsonl").touch()
    with chdir(folder):
        encode_here(folder / "parts", params_for(overrides=SETTINGS[:2]), folder / "data/latents")
    return folder


def tiny_run(project: Path, name: str, **changes: Any) -> TransformerRun:
    """A run in `project`, whose tracking store is not there. changes: of its configuration."""
    config: TrainConfig = replace(params_for(overrides=SETTINGS).train, **changes)
    folder = project / "runs" / name
    folder.mkdir(parents=True, exist_ok=True)
    return TransformerRun(
        config=config,
        identity=RunIdentity(f"sqlite:///{folder}/mlflow.db", "0" * 32, str(folder / "outbox")),
        latents=project / "data/latents",
        quarantine=project / "data/quarantine/latents.jsonl",
        tokenizer=project / "data/tokenizer",
        autoencoder=project / "artifacts/autoencoder",
        folder=folder,
    )


class Workers:
    """The processes of one try at a run.

    prepare: called in each before it trains, with the run and its rank: it sets a trap, say.
    """

    def __init__(
        self, run: TransformerRun, size: int, attempt: int, prepare: Callable[[TransformerRun, int], None] | None = None
    ) -> None:
        self.run, meeting = run, run.folder / f"meet-{uuid.uuid4().hex}"
        self.processes: list[BaseProcess] = [
            CONTEXT.Process(target=work, args=(run, rank, size, attempt, meeting, prepare)) for rank in range(size)
        ]
        for process in self.processes:
            process.start()

    def wait_for_step(self, step: int) -> bool:
        """Until the journal has the step; False where the workers have ended before."""
        deadline_s = time.monotonic() + PATIENCE_S
        while last_step(self.run) < step:
            if not any(process.is_alive() for process in self.processes):
                return False
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"step {step} is not reached: {self.said()}")
            time.sleep(0.004)
        return True

    def kill(self, ranks: Sequence[int] | None = None) -> None:
        """SIGKILL to some, all by default; the others must end by themselves."""
        for rank in range(len(self.processes)) if ranks is None else ranks:
            self.processes[rank].kill()
        self.join()

    def join(self) -> list[int]:
        """Wait for the end of all; their exit codes."""
        try:
            for process in self.processes:
                process.join(PATIENCE_S)
                if process.is_alive():
                    raise RuntimeError(f"a worker does not end: {self.said()}")
        finally:
            for process in self.processes:
                process.kill()
        return [process.exitcode or 0 for process in self.processes]

    def said(self) -> str:
        """The end of what the workers printed."""
        return "\n".join(path.read_text()[-1500:] for path in sorted(self.run.folder.glob("said-*.log")))


def finish(run: TransformerRun, size: int, attempt: int) -> None:
    """Train to the last step, undisturbed from here on."""
    workers = Workers(run, size, attempt)
    if any(workers.join()):
        raise RuntimeError(workers.said())


def last_step(run: TransformerRun) -> int:
    """The last step in the journal's whole lines; 0 where there is none. Cheap enough to be asked without end."""
    if not run.journal.exists():
        return 0
    with run.journal.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
        lines = file.read().rpartition(b"\n")[0].splitlines()
    return int(lines[-1].partition(b'"step": ')[2].partition(b",")[0]) if lines else 0


def work(
    run: TransformerRun,
    rank: int,
    size: int,
    attempt: int,
    meeting: Path,
    prepare: Callable[[TransformerRun, int], None] | None,
    *,
    leave: bool = True,
) -> None:
    """One worker. leave: the process ends with it."""
    import torch
    import torch.distributed

    from components.runtime.world import World
    from components.training.transformer.worker import train

    said = os.open(run.folder / f"said-{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, sys.stdout.fileno())
    os.dup2(said, sys.stderr.fileno())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    if size > 1:
        torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
    write_down_rows(run.folder / f"rows-{rank}.log", attempt)
    if prepare is not None:
        prepare(run, rank)
    train(run, World(rank, size, torch.device("cpu")))
    sys.stdout.flush()
    if leave:
        # Without the destructors: what other threads of libraries do in them is not of the training.
        os._exit(0)


def write_down_rows(log: Path, attempt: int) -> None:
    """From now on this process writes a line for each training batch that it reads: attempt, step, rows."""
    from components.data.loader import PackedRows

    read, file = PackedRows.batch, os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def batch(self: PackedRows, rows: Any, *, step: int, **options: Any) -> Any:
        if step:  # 0 is of held-out rows
            os.write(file, f"{attempt} {step} {' '.join(str(row) for row in rows)}\n".encode())
        return read(self, rows, step=step, **options)

    PackedRows.batch = batch
