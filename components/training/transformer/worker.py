"""One process that trains the transformer, from start to end: it opens the rows, resumes, trains and reports.

It is one of several under Ray Train. All write checkpoints; worker 0 alone the MLflow run, and at the end the finished model.
"""

from __future__ import annotations

from components.data.loader import PackedRows
from components.runtime.world import World
from components.training.transformer.callbacks import CheckpointCallback, RankZeroCallback
from components.training.transformer.companion import Companion
from components.training.transformer.run import TransformerRun
from components.training.transformer.state import new_state
from components.training.transformer.trainer import TransformerTrainer
from core.errors import BadInput
from core.files import digest


def train(run: TransformerRun, world: World) -> None:
    """Train from the newest usable checkpoint to the last step; worker 0 writes `run.finished`."""
    rows = PackedRows(run.latents, "train", run.quarantine)
    validation = PackedRows(run.latents, "validation", run.quarantine)
    _check_same(rows, world)
    state = new_state(run.config, rows, world, run.start)
    trainer = TransformerTrainer(run.config, state, rows, validation, world)
    with run.resumed(state, world) as checkpointer, run.watchdog(world, run.config.step_timeout_s) as watchdog:
        first_step = checkpointer.first_step
        callback: CheckpointCallback
        if world.rank == 0:
            callback = RankZeroCallback(run, validation, state.selection, world, checkpointer)
        elif state.is_sharded:
            callback = Companion(run, validation, checkpointer)
        else:
            callback = CheckpointCallback(checkpointer)
        if first_step == 1:  # MLflow's slider begins at step 0: what a model draws that has learnt nothing yet
            callback.sample(0, state.ema_model)
        trainer.run(watchdog.over(trainer, trainer.schedule(callback)), first_step=first_step)
        callback.finish(state)


def _check_same(rows: PackedRows, world: World) -> None:
    """BadInput where this worker reads other rows than worker 0: its steps would be others than theirs, without a word."""
    known = int(digest([rows.num_rows, rows.num_images, rows.num_left_out])[:12], 16)
    if world.agreed(known) != known:
        raise BadInput(
            f"worker {world.rank} reads {rows.num_rows} rows with {rows.num_images} images, and worker 0 others; "
            "all workers must see one and the same data/latents and data/quarantine"
        )
