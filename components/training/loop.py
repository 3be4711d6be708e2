"""What happens in a training step, and what every so many steps? The loop, the same on one worker and on many.

Losses are divided by the counts of the whole step's rows over all workers, so that any number of workers takes the same
step. Rows, noise, dropped captions and the rate are pure functions of (seed, step): a restart needs the weights and the
step alone.
"""

from __future__ import annotations

import copy
import time
from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from components.data.loader import PackedRows, rows_of_step
from components.runtime.workers import World
from components.training.checkpoints import TrainingState
from components.training.config import TrainConfig
from components.training.optimiser import build_optimiser, learning_rate, set_learning_rate, update_ema
from components.training.precision import autocast
from core.errors import BadInput
from model.batch import Batch
from model.flops import step_flops
from model.loss import LossSums, loss_sums
from model.transfusion import Transfusion

# Validation reads at most this many packed rows: enough for a steady figure, little beside the training between two.
MAX_VALIDATION_ROWS = 256


class Losses(NamedTuple):
    """Means over whole steps: text in nats a token, image as squared error a number, total = text + lambda * image."""

    total: float
    text: float
    image: float


class Progress(NamedTuple):
    """What the num_steps steps since the last report did together.

    num_positions: text tokens and patches over all workers. flops: of all workers. elapsed_s: spent in these steps
    alone.
    """

    step: int
    num_steps: int
    losses: Losses
    learning_rate: float
    gradient_norm: float
    num_positions: int
    flops: float
    elapsed_s: float


class Events(Protocol):
    """What the loop tells the world; called on every worker, after the same steps."""

    def log(self, progress: Progress) -> None: ...

    def validated(self, step: int, losses: Losses) -> None: ...

    def sample(self, step: int, ema_model: Transfusion) -> None: ...

    def checkpoint(self, step: int, state: TrainingState) -> None: ...


class Sums:
    """Losses summed over steps and workers. values: float64 [text, tokens, image, values, positions, flops]."""

    def __init__(self, device: torch.device) -> None:
        self.values = torch.zeros(6, dtype=torch.float64, device=device)
        self.num_steps = 0
        self.elapsed_s = 0.0

    def losses(self, image_loss_weight: float) -> Losses:
        text, tokens, image, values = self.values[:4].tolist()
        text, image = text / max(tokens, 1), image / max(values, 1)
        return Losses(text + image_loss_weight * image, text, image)


def new_state(model: Transfusion, config: TrainConfig, device: torch.device) -> TrainingState:
    """The model on its device, with EMA weights equal to its own and an optimiser without moments."""
    model = model.to(device).train()
    ema_model = copy.deepcopy(model).eval().requires_grad_(False)
    return TrainingState(model, ema_model, build_optimiser(model, config))


class Trainer:
    """One worker's part in a run; `run` is the loop."""

    def __init__(
        self, config: TrainConfig, state: TrainingState, rows: PackedRows, validation: PackedRows, world: World
    ) -> None:
        if config.batch_rows < world.size:
            raise BadInput(f"train.batch_rows {config.batch_rows} leaves some of the {world.size} workers without a row")
        self.config, self.state, self.rows, self.validation, self.world = config, state, rows, validation, world
        # Parallelism is put around the model here; the model itself knows nothing of it.
        self.model: nn.Module = (
            DistributedDataParallel(state.model, gradient_as_bucket_view=True) if world.size > 1 else state.model
        )

    def run(self, events: Events, *, first_step: int) -> None:
        """Train from first_step (the first of all is 1) to config.max_steps."""
        config, sums = self.config, Sums(self.world.device)
        for step in range(first_step, config.max_steps + 1):
            started_s = time.monotonic()
            batch = self.batch_of(step)
            norm, seen = self.take_step(batch, step)
            sums.values += seen
            sums.num_steps += 1
            sums.elapsed_s += time.monotonic() - started_s

            if self.is_due(config.log_every_steps, step):
                events.log(self.report(step, norm, sums))
                sums = Sums(self.world.device)
            if self.is_due(config.validate_every_steps, step):
                events.validated(step, self.validate())
            if self.is_due(config.sample_every_steps, step):
                events.sample(step, self.state.ema_model)
            if self.is_due(config.checkpoint_every_steps, step):
                events.checkpoint(step, self.state)

    def is_due(self, interval: int, step: int) -> bool:
        return step % interval == 0 or step == self.config.max_steps

    def batch_of(self, step: int) -> Batch:
        """This worker's share of the step's rows."""
        numbers = rows_of_step(self.config.seed, step - 1, self.config.batch_rows, self.rows.num_rows)
        config = self.config
        return self.read(self.rows, self.share(numbers), step, config.caption_dropout, config.resample_latents)

    def take_step(self, batch: Batch, step: int) -> tuple[float, Tensor]:
        """One optimiser step: the gradient's norm before clipping, and what all workers saw, as Sums.values."""
        state, config = self.state, self.config
        with autocast(self.config.precision, self.world.device):
            local = loss_sums(self.model, batch, config.seed, step, config.loss)
        seen = self.over_all_workers(self.sums_of(local, batch))
        loss = local.text / seen[1].clamp_min(1) + config.image_loss_weight * local.image / seen[3].clamp_min(1)
        # DistributedDataParallel averages gradients over workers, and each worker's loss is a share of one sum.
        (loss * self.world.size).backward()
        norm = nn.utils.clip_grad_norm_(state.model.parameters(), config.clip_norm)
        if not torch.isfinite(norm):
            raise BadInput(f"the gradient of step {step} is not finite; lower train.learning_rate or raise train.warmup_steps")
        set_learning_rate(state.optimiser, learning_rate(config, step))
        state.optimiser.step()
        state.optimiser.zero_grad()
        update_ema(state.ema_model, state.model, config.ema_decay, step)
        return float(norm), seen

    @torch.inference_mode()
    def validate(self) -> Losses:
        """Losses of the EMA weights on held-out rows, at the same noise every time."""
        # Weights and penalties are means of training; held-out losses are the plain ones, at the noise levels of training.
        options = replace(self.config.loss, after_image_weight=1.0, snr_gamma=0.0, z_loss_weight=0.0)
        sums = Sums(self.world.device)
        numbers = self.share(np.arange(min(self.validation.num_rows, MAX_VALIDATION_ROWS)))
        for start in range(0, len(numbers), self.config.batch_rows):
            part = numbers[start : start + self.config.batch_rows]
            batch = self.read(self.validation, part, step=0, caption_dropout=0.0, resample_latents=False)
            with autocast(self.config.precision, self.world.device):
                local = loss_sums(self.state.ema_model, batch, self.config.seed, 0, options)
            sums.values += self.sums_of(local, batch)
        self.over_all_workers(sums.values)
        return sums.losses(self.config.image_loss_weight)

    def report(self, step: int, norm: float, sums: Sums) -> Progress:
        """The steps that `sums` holds."""
        positions, flops = sums.values[4:].tolist()
        return Progress(
            step=step,
            num_steps=sums.num_steps,
            losses=sums.losses(self.config.image_loss_weight),
            learning_rate=learning_rate(self.config, step),
            gradient_norm=norm,
            num_positions=int(positions),
            flops=flops,
            elapsed_s=sums.elapsed_s,
        )

    def read(self, rows: PackedRows, numbers: np.ndarray, step: int, caption_dropout: float, resample_latents: bool) -> Batch:
        """The rows `numbers` as a batch on this worker's device."""
        batch = rows.batch(
            numbers,
            step=step,
            seed=self.config.seed,
            patch_side=self.config.model.patch_side,
            caption_dropout=caption_dropout,
            resample_latents=resample_latents,
            image_first_time_limit=self.config.image_first_time_limit,
        )
        return batch.to(self.world.device)

    def share(self, numbers: np.ndarray) -> np.ndarray:
        """This worker's slice."""
        return np.array_split(numbers, self.world.size)[self.world.rank]

    def sums_of(self, local: LossSums, batch: Batch) -> Tensor:
        """What this worker saw, as Sums.values."""
        num_positions = int(batch.used(self.state.model.config.pad_token_id).sum())
        counts = [local.num_values, num_positions, step_flops(self.state.model, batch, num_positions)]
        numbers = [local.text.item(), local.num_tokens, local.image.item(), *counts]
        return torch.tensor(numbers, dtype=torch.float64, device=self.world.device)

    def over_all_workers(self, values: Tensor) -> Tensor:
        """Add the other workers' values, in place."""
        if self.world.size > 1:
            torch.distributed.all_reduce(values)
        return values
