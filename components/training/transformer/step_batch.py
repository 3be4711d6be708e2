"""The rows of a step as a worker reads them: in micro-batches, with their noise, and with what their losses are divided by.

All of it is a pure function of (seed, step). Which micro-batch a sample falls in changes nothing that is drawn for it.
"Local" is what this worker reads of a step.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from components.data.loader import PackedRows, rows_of_step
from components.runtime.world import World
from components.training.transformer.config import TrainConfig
from model.batch import Batch
from model.config import DiffusionProcess
from model.diffusion.noise import TimedNoise
from model.flops import step_flops
from model.loss import training_noise
from model.transfusion import Transfusion


class MicroBatch(NamedTuple):
    """The rows of one forward and backward pass."""

    batch: Batch
    noises: tuple[TimedNoise, ...]
    """For each modality."""
    counts: Tensor
    """Of `read_counts`; zeros where share is 0."""
    share: int
    """1; or 0 where the rows are those of another micro-batch once more, and count for nothing."""

    def to(self, device: torch.device) -> MicroBatch:
        """The same on `device`, copied while the host goes on where its memory is pinned."""
        noises = tuple(TimedNoise(*(part.to(device, non_blocking=True) for part in each)) for each in self.noises)
        return MicroBatch(self.batch.to(device), noises, self.counts.to(device, non_blocking=True), self.share)


class StepBatch(NamedTuple):
    """A worker's part of a step, on the CPU."""

    micro_batches: list[MicroBatch]
    """As many on every worker."""
    divisors: Tensor
    """float64 [2]: the weights of the local tokens, and the numbers of the local latents."""


def read_counts(model: Transfusion, batch: Batch) -> Tensor:
    """What a batch on the CPU holds, float64 [3]: numbers of latents; text tokens and patches; floating-point operations of its
    forward and backward pass. Counted on the CPU, where that waits for no device."""
    num_positions = int(batch.used(model.config.pad_token_id).sum())
    num_values = sum(part.patches.numel() for part in batch.latents)
    return torch.tensor([num_values, num_positions, step_flops(model, batch, num_positions)], dtype=torch.float64)


def pinned(value: Any) -> Any:
    """The tensors in `value`, inside of tuples and lists too, in memory that a GPU copies from while the host goes on."""
    if isinstance(value, Tensor):
        return value.pin_memory()
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(pinned, value))
    return type(value)(map(pinned, value)) if isinstance(value, tuple | list) else value


class StepReader:
    """Reads any step of a training, on the CPU."""

    def __init__(self, config: TrainConfig, model: Transfusion, rows: PackedRows, world: World) -> None:
        """model: the bare one, of which the configuration and the shapes are read."""
        self.config, self.model, self.rows, self.world = config, model, rows, world

    @property
    def process(self) -> DiffusionProcess:
        """How latents are noised."""
        return self.model.config.process

    def step(self, step: int) -> StepBatch:
        """This worker's part of optimiser step `step`, which count from 1."""
        local = self.local_rows(self.global_rows(step))
        parts = np.array_split(local, self.num_micro_batches)
        # The first row once more where a worker has fewer rows than there are passes: sharded weights are gathered in every
        # pass, by all workers together.
        micro_batches = [self.micro_batch(part if len(part) else local[:1], step, share=int(len(part) > 0)) for part in parts]
        num_tokens = sum(each.share * self.weight_of_tokens(each.batch) for each in micro_batches)
        num_values = sum(float(each.counts[0]) for each in micro_batches)
        found = StepBatch(micro_batches, torch.tensor([num_tokens, num_values], dtype=torch.float64))
        return pinned(found) if self.world.device.type == "cuda" else found

    def global_rows(self, step: int) -> np.ndarray:
        """The numbers of the step's rows over all workers."""
        # Optimiser steps count from 1, rows are dealt out from 0.
        return rows_of_step(self.config.seed, step - 1, self.config.batch_rows, self.rows.num_rows)

    def local_rows(self, numbers: np.ndarray) -> np.ndarray:
        """This worker's part of a step's rows."""
        return numbers[self.world.slice_of(len(numbers))]

    @property
    def num_micro_batches(self) -> int:
        """Of a step, on every worker: what the worker with the most rows needs."""
        most_rows = math.ceil(self.config.batch_rows / self.world.size)
        return math.ceil(most_rows / (self.config.micro_batch_rows or most_rows))

    def micro_batch(self, numbers: np.ndarray, step: int, *, share: int) -> MicroBatch:
        """The rows `numbers` and their noise."""
        config = self.config
        batch = self.read(self.rows, numbers, step, config.caption_dropout, config.resample_latents)
        noises = tuple(
            training_noise(self.process, part, number, config.seed, step, config.loss)
            for number, part in enumerate(batch.latents)
        )
        return MicroBatch(batch, noises, read_counts(self.model, batch) * share, share)

    def weight_of_tokens(self, batch: Batch) -> float:
        """What the text's loss is divided by (LossSums.num_tokens), known before there is a loss."""
        return float(torch.where(batch.after_image, self.config.loss.after_image_weight, 1.0).sum())

    def read(self, rows: PackedRows, numbers: np.ndarray, step: int, caption_dropout: float, resample_latents: bool) -> Batch:
        """The rows `numbers` as a batch."""
        return rows.batch(
            numbers,
            step=step,
            seed=self.config.seed,
            patch_side=self.config.model.patch_side,
            caption_dropout=caption_dropout,
            resample_latents=resample_latents,
            image_first_time_limit=self.config.image_first_time_limit,
        )
