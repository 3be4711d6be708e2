"""What workers other than 0 do with a training's results where weights lie in shards: their part of what worker 0 asks of them.

Whatever reads the weights then gathers them from all workers, which have to come to the same places in the same order.
"""

from __future__ import annotations

from components.data.loader import PackedRows
from components.training.checkpointer import Checkpointer
from components.training.transformer.callbacks import CheckpointCallback
from components.training.transformer.image_sampler import ImageSampler
from components.training.transformer.run import TransformerRun
from components.training.transformer.state import TransformerState
from model.transfusion import Transfusion


class Companion(CheckpointCallback):
    """Goes where `RankZeroCallback` goes, and keeps its part of the checkpoints alone."""

    def __init__(self, run: TransformerRun, validation: PackedRows, checkpointer: Checkpointer) -> None:
        super().__init__(checkpointer)
        self.sampler = ImageSampler.of_run(run, validation)

    def sample(self, step: int, ema_model: Transfusion) -> None:
        """Gather the weights for worker 0's images, by generating the same ones."""
        self.sampler.latents(ema_model)

    def finish(self, state: TransformerState) -> None:
        """The same weights are handed on, and images of them drawn, as on worker 0."""
        state.keep_selected()
        if state.selection.kept_step < state.selection.last_step:
            self.sample(state.selection.kept_step, state.ema_model)
