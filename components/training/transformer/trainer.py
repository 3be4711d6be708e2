"""The transformer's training step, its losses on held-out rows, and what is due after how many steps.

Losses are divided by the counts of the whole step's rows over all workers, so that any number of workers takes the same step.
"Local" is what this worker reads or finds of it, "global" is all workers' together.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from components.data.loader import PackedRows
from components.data.prefetch import Prefetch
from components.runtime.world import World
from components.training.gradient_sync import gradient_sync
from components.training.optimiser import clip_and_step, update_ema
from components.training.parallel import evenly, joined
from components.training.precision import autocast
from components.training.trainer import Every, Trainer
from components.training.transformer.config import Figure, TrainConfig
from components.training.transformer.held_out_images import HeldOutImages
from components.training.transformer.reports import Callback, LossAccumulator, Losses, Progress, Validation
from components.training.transformer.schedule import learning_rate
from components.training.transformer.selection import check_measurable
from components.training.transformer.state import TransformerState
from components.training.transformer.step_batch import MicroBatch, StepBatch, StepReader, read_counts
from core.errors import BadInput
from model.batch import Batch
from model.loss import LossSums, loss_sums, loss_sums_at

# Validation reads at most this many packed rows: enough for a steady figure, little beside the training between two.
MAX_VALIDATION_ROWS = 256


class TransformerTrainer(Trainer):
    """One worker's part in the training of the transformer."""

    remedy = "lower train.learning_rate or raise train.warmup_steps"

    def __init__(
        self, config: TrainConfig, state: TransformerState, rows: PackedRows, validation: PackedRows, world: World
    ) -> None:
        if config.batch_rows < world.size:
            raise BadInput(f"train.batch_rows {config.batch_rows} leaves some of the {world.size} workers without a row")
        super().__init__(config.max_steps)
        self.config, self.state, self.validation, self.world = config, state, validation, world
        # For losses alone, whose gradients it averages; checkpoints and the optimiser know the bare model.
        self.model = joined(state.model, world)
        self.reader = StepReader(config, state.model, rows, world)
        self.batches = Prefetch(self.reader.step, config.max_steps)
        self.accumulator = LossAccumulator(world.device)
        self.gradient_norm = 0.0
        self.held_out_images = HeldOutImages(validation, config, world)
        if config.selection.is_used:
            check_measurable(config.selection.figure, self.measurable())

    @property
    def last_step(self) -> int:
        """Of max_steps the last, or the one after which validations were too long without an improvement."""
        return self.state.selection.last_step

    def schedule(self, callback: Callback) -> list[Every]:
        """What is due after how many steps, in this order."""
        config, state = self.config, self.state
        # Validation first, because it may say that this step is the last one, after which everything else is done once more.
        return [
            Every(config.validate_every_steps, lambda step: callback.validated(step, self.validate(step))),
            Every(config.log_every_steps, lambda step: callback.log(self.progress(step)), takes_long=False),
            Every(config.sample_every_steps, lambda step: callback.sample(step, state.ema_model)),
            Every(config.checkpoint_every_steps, lambda step: callback.checkpoint(step, state)),
        ]

    def run(self, schedule: Sequence[Every], *, first_step: int) -> None:
        """Train from first_step to the last step, and read what the next steps take while a step is taken."""
        with self.batches:
            super().run(schedule, first_step=first_step)

    def train_step(self, step: int) -> Tensor:
        """Losses and gradients, then a step of the optimiser and of the average; the accumulator takes the figures."""
        started_s, config, state = time.monotonic(), self.config, self.state
        batch = self.batches.of(step)
        self.accumulator.waited_s += time.monotonic() - started_s
        global_sums = self.backward(batch)
        rate = learning_rate(config, step)
        # The bare model: where workers wrap it, the wrapper's gradients are these.
        stepped = clip_and_step(state.model, state.optimisers, clip_norm=config.clip_norm, learning_rate=rate)
        update_ema(state.ema_model, state.model, config.ema_decay, step, stepped.skipped)
        self.accumulator.sums += global_sums
        self.accumulator.num_steps += 1
        self.accumulator.elapsed_s += time.monotonic() - started_s
        return stepped.gradient_norm.double().view(1)

    def judged(self, step: int, *, num_kept: int) -> int:
        """As any trainer; what the device still had to do for the numbers is a part of the steps' time."""
        started_s = time.monotonic()
        reached = super().judged(step, num_kept=num_kept)
        self.accumulator.elapsed_s += time.monotonic() - started_s
        return reached

    def judge(self, step: int, numbers: Sequence[float]) -> int:
        """Keep the gradient's norm for the next report."""
        self.gradient_norm = numbers[0]
        return super().judge(step, numbers)

    def backward(self, local: StepBatch) -> Tensor:
        """The gradients of a whole step, micro-batch by micro-batch; returns LossAccumulator.sums of it, over all workers."""
        # Of the whole step, and known before its first backward pass: whatever adds up to it has the same divisors.
        divisors = self.world.all_reduce(local.divisors.to(self.world.device, non_blocking=True)).clamp_min(1)
        sums = torch.zeros_like(self.accumulator.sums)
        for number, micro_batch in enumerate(local.micro_batches, start=1):
            with gradient_sync(self.model, is_last=number == len(local.micro_batches)):
                sums += self.add_gradients(micro_batch.to(self.world.device), divisors)
        return self.world.all_reduce(sums)

    def add_gradients(self, micro_batch: MicroBatch, divisors: Tensor) -> Tensor:
        """Losses and gradients of some of the step's rows; returns their part of LossAccumulator.sums.

        divisors: float64 [2], of the whole step over all workers, what StepBatch has of this worker's part.
        """
        config, (num_tokens, num_values) = self.config, divisors
        with autocast(config.precision, self.world.device):
            local = loss_sums_at(self.model, micro_batch.batch, micro_batch.noises, config.loss)
        loss = local.text / num_tokens + config.image_loss_weight * local.image / num_values
        # Each worker's loss is a share of one sum, and gradients are averaged over workers: this makes it a sum again.
        (loss * (self.world.size * micro_batch.share)).backward()
        return self.sums_of(local, micro_batch.counts) * micro_batch.share

    def progress(self, step: int) -> Progress:
        """The steps since the last call, which the next call leaves out."""
        done, self.accumulator = self.accumulator, LossAccumulator(self.world.device)
        # An accelerator may still be at the last step: waiting for it is a part of the steps' time.
        started_s = time.monotonic()
        num_positions, flops = done.sums[-2:].tolist()
        elapsed_s = done.elapsed_s + time.monotonic() - started_s
        return Progress(
            step=step,
            num_steps=done.num_steps,
            losses=done.losses(self.config.image_loss_weight),
            image_by_time=done.image_by_time(),
            learning_rate=learning_rate(self.config, step),
            gradient_norm=self.gradient_norm,
            num_positions=int(num_positions),
            flops=flops,
            elapsed_s=elapsed_s,
            waited_s=done.waited_s,
        )

    def validate(self, step: int) -> Validation:
        """Measure the EMA weights after `step` on held-out documents, and note which weights are to be kept."""
        measured = Validation(self.held_out_losses(), self.held_out_images.measure(self.state.ema_model))
        # The same bits on all workers, as sums over workers are: all of them keep the same step, and stop after the same one.
        self.state.select(step, measured.figure(self.config.selection.figure))
        return measured

    @torch.inference_mode()
    def held_out_losses(self) -> Losses:
        """Losses of the EMA weights on held-out rows, at the same noise every time."""
        # Weights and penalties steer training; held-out losses are the plain ones, at the noise levels of training.
        options = replace(self.config.loss, after_image_weight=1.0, snr_gamma=0.0, z_loss_weight=0.0)
        found = LossAccumulator(self.world.device)
        passes, of_first = self.passes_of(self.held_out_rows_of(self.world.rank)), self.passes_of(self.held_out_rows_of(0))
        # Worker 0 has as many rows as any.
        for numbers, is_counted in evenly(passes, len(of_first), of_first):
            host_batch = self.held_out_batch(numbers)
            batch = host_batch.to(self.world.device)
            with autocast(self.config.precision, self.world.device):
                local = loss_sums(self.state.ema_model, batch, self.config.seed, 0, options)
            if is_counted:
                found.sums += self.sums_of(local, read_counts(self.state.model, host_batch))
        self.world.all_reduce(found.sums)
        return found.losses(self.config.image_loss_weight)

    @property
    def held_out_rows(self) -> np.ndarray:
        """The rows that validation reads, of all workers together."""
        return np.arange(min(self.validation.num_rows, MAX_VALIDATION_ROWS))

    def held_out_rows_of(self, rank: int) -> np.ndarray:
        """Those of them that the worker `rank` reads."""
        return self.held_out_rows[self.world._replace(rank=rank).slice_of(len(self.held_out_rows))]

    def passes_of(self, numbers: np.ndarray) -> list[np.ndarray]:
        """The rows `numbers`, as many together as a step has."""
        return [numbers[start : start + self.config.batch_rows] for start in range(0, len(numbers), self.config.batch_rows)]

    def held_out_batch(self, numbers: np.ndarray) -> Batch:
        """Rows of the validation split, on the CPU: every caption is seen, and every latent is its mean."""
        return self.reader.read(self.validation, numbers, step=0, caption_dropout=0.0, resample_latents=False)

    def measurable(self) -> set[Figure]:
        """The figures that the held-out rows can give."""
        found: set[Figure] = {"loss"}
        for batch in map(self.held_out_batch, self.passes_of(self.held_out_rows)):
            after = int(batch.after_image.sum())
            there: dict[Figure, bool] = {
                "text": len(batch.labels) > 0,
                "text_after_image": after > 0,
                "text_elsewhere": after < len(batch.labels),
                "image": any(part.grids for part in batch.latents),
                "caption_gap": self.held_out_images.has_captions,
            }
            found |= {figure for figure, is_there in there.items() if is_there}
        return found

    def sums_of(self, local: LossSums, counts: Tensor) -> Tensor:
        """A batch's part of LossAccumulator.sums. counts: of `read_counts`."""
        losses = torch.stack([local.text, local.num_tokens, local.image]).detach().double()
        counts = counts.to(losses.device, non_blocking=True)
        return torch.cat([losses, counts[:1], local.by_place.double(), local.by_time.double(), counts[1:]])
