"""One process that trains the transformer, from start to end: it opens the rows, resumes, trains and reports.

It is one of several under Ray Train. Worker 0 alone writes: the MLflow run, the checkpoints, and at the end the finished model.
"""

from __future__ import annotations

from components.data.loader import PackedRows
from components.runtime.world import World
from components.training.transformer.callbacks import RankZeroCallback
from components.training.transformer.run import TransformerRun
from components.training.transformer.state import new_state
from components.training.transformer.trainer import Callback, TransformerTrainer


def train(run: TransformerRun, world: World) -> None:
    """Train from the newest usable checkpoint to the last step; worker 0 writes `run.finished`."""
    rows = PackedRows(run.latents, "train", run.quarantine)
    validation = PackedRows(run.latents, "validation", run.quarantine)
    state = new_state(run.config, rows, world)
    trainer = TransformerTrainer(run.config, state, rows, validation, world)
    with run.resumed(state, world) as first_step:
        if world.rank > 0:
            trainer.run(trainer.schedule(Callback()), first_step=first_step)
            return
        callback = RankZeroCallback(run, validation, state.selection, world, first_step=first_step)
        if first_step == 1:  # MLflow's slider begins at step 0: what a model draws that has learnt nothing yet
            callback.sample(0, state.ema_model)
        trainer.run(trainer.schedule(callback), first_step=first_step)
        callback.finish(state)
