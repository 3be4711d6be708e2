"""A training run in plain torch, written from the paper's equations and the documented rules: what the loop is compared with.

Of the code under test it takes the model's forward pass, the reading of given rows and the key of a random stream. What a
step reads, how it is noised, weighed, clipped and moved, and what is averaged and measured, is written out here.
Rectified flow alone; one worker.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from components.data.loader import PackedRows
from components.training.transformer.config import TrainConfig
from core.random import seed_of
from model.batch import Batch
from model.loss_options import LossOptions
from model.transfusion import Transfusion
from tests.components.training.conftest import CONFIG

# Nothing in it is neutral: everything that may be left out, forgotten or mixed up changes what is learnt. With an epsilon as
# large as this AdamW moves weights by about their gradients, and hides no factor of them.
UNEVEN: TrainConfig = dataclasses.replace(
    CONFIG,
    batch_rows=5,
    max_steps=7,
    warmup_steps=3,
    adam_eps=0.1,
    clip_norm=2.3,
    image_loss_weight=4.0,
    loss=LossOptions(
        time_distribution="uniform",
        time_mean=0.0,
        time_std=1.0,
        time_shift=3.0,
        snr_gamma=2.0,
        after_image_weight=2.5,
        z_loss_weight=0.01,
    ),
    image_first_time_limit=0.3,
    caption_dropout=0.5,
    resample_latents=True,
    ema_decay=0.8,
    checkpoint_every_steps=3,
    sample_every_steps=4,
    log_every_steps=1,
    validate_every_steps=3,
)


class Measured(NamedTuple):
    """Means of a step's rows, or of the validation's: of the text, of the image, and text + lambda * image; of plain text."""

    total: float
    text: float
    image: float
    text_after_image: float
    text_elsewhere: float


class Step(NamedTuple):
    """losses, gradient_norm: before the step and its clipping. weights, ema_model: by name, after it."""

    losses: Measured
    gradient_norm: float
    learning_rate: float
    weights: dict[str, Tensor]
    ema_model: dict[str, Tensor]
    validation: Measured


def reference_run(config: TrainConfig, model: Transfusion, rows: PackedRows, validation: PackedRows) -> list[Step]:
    """Every step from the first one, of a model that is not changed."""
    model = copy.deepcopy(model)
    names, parameters = zip(*model.named_parameters(), strict=True)
    ema_model = [parameter.detach().clone() for parameter in parameters]
    first, second = ([torch.zeros_like(parameter) for parameter in parameters] for _ in range(2))
    steps = []
    for step in range(1, config.max_steps + 1):
        batch = _batch(config, rows, _rows_of(config, rows.num_rows, step), step)
        text, image, *places = _losses(model, batch, config.seed, step, config.loss)
        loss = text + config.image_loss_weight * image
        gradients = list(torch.autograd.grad(loss, parameters))
        norm = math.sqrt(sum(gradient.double().square().sum().item() for gradient in gradients))
        rate = _rate(config, step)
        with torch.no_grad():
            for index, parameter in enumerate(parameters):
                gradient = gradients[index] * min(1.0, config.clip_norm / norm)
                if config.optimiser == "muon" and ".blocks." in names[index] and parameter.dim() == 2:
                    _muon(config, rate, names[index], parameter, gradient, first[index])
                else:
                    _adamw(config, step, rate, parameter, gradient, first[index], second[index])
                kept = min(config.ema_decay, (1 + step) / (10 + step))
                ema_model[index] = kept * ema_model[index] + (1 - kept) * parameter
        weights = {name: parameter.detach().clone() for name, parameter in zip(names, parameters, strict=True)}
        means = dict(zip(names, ema_model, strict=True))
        measured = Measured(*(value.item() for value in (loss, text, image, *places)))
        steps.append(Step(measured, norm, rate, weights, means, _validated(config, model, means, validation)))
    return steps


def _rows_of(config: TrainConfig, num_rows: int, step: int) -> np.ndarray:
    """Rows come in epochs, each a permutation drawn from (seed, epoch); a step takes the next batch_rows of them."""
    samples = range((step - 1) * config.batch_rows, step * config.batch_rows)
    orders = {epoch: np.random.default_rng([config.seed, epoch]).permutation(num_rows) for epoch in range(100)}
    return np.array([orders[sample // num_rows][sample % num_rows] for sample in samples])


def _batch(config: TrainConfig, rows: PackedRows, numbers: np.ndarray, step: int, *, training: bool = True) -> Batch:
    """Held-out rows keep every caption and every latent's mean."""
    return rows.batch(
        numbers,
        step=step,
        seed=config.seed,
        patch_side=config.model.patch_side,
        caption_dropout=config.caption_dropout if training else 0.0,
        image_first_time_limit=config.image_first_time_limit,
        resample_latents=config.resample_latents and training,
    )


def _losses(model: Transfusion, batch: Batch, seed: int, step: int, options: LossOptions) -> tuple[Tensor, ...]:
    """Mean over predicted tokens, mean over the patches' numbers; and the tokens behind images and all others, unweighted."""
    (images,) = batch.latents
    num_patches = len(images.patches) // len(images.sample_index)
    times, noises = [], []
    for sample, limit in zip(images.sample_index.tolist(), images.time_limit.tolist(), strict=True):
        generator = np.random.Generator(np.random.Philox(key=seed_of(seed, step, sample, 0)))
        time = torch.tensor(generator.random(dtype=np.float32))
        shape = (num_patches, images.patches.shape[-1])
        noises.append(torch.from_numpy(generator.standard_normal(shape, dtype=np.float32)))
        times.append(limit * options.time_shift * time / (1 + (options.time_shift - 1) * time))
    time, noise = torch.stack(times), torch.cat(noises)
    at = time[images.latent_index].unsqueeze(-1)
    output = model(batch, [(1 - at) * images.patches + at * noise], [time])
    error = (output.predictions[0] - (noise - images.patches)).square()
    if options.snr_gamma:
        error = error * (((1 - at) / at).square().clamp(max=options.snr_gamma) * at.square())
    each = output.text.cross_entropy + options.z_loss_weight * output.text.log_normaliser.square()
    weight = torch.where(batch.after_image, options.after_image_weight, 1.0)
    plain, after = output.text.cross_entropy, batch.after_image
    return (each * weight).sum() / weight.sum(), error.mean(), plain[after].mean(), plain[~after].mean()


def _rate(config: TrainConfig, step: int) -> float:
    if step <= config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    share = (step - config.warmup_steps) / (config.max_steps - config.warmup_steps)
    fallen = (1 + math.cos(math.pi * share)) / 2
    return config.min_learning_rate + (config.learning_rate - config.min_learning_rate) * fallen


def _adamw(
    config: TrainConfig, step: int, rate: float, parameter: Tensor, gradient: Tensor, first: Tensor, second: Tensor
) -> None:
    """Loshchilov and Hutter, arXiv 1711.05101, Algorithm 2; vectors do not decay."""
    first.mul_(config.adam_beta1).add_((1 - config.adam_beta1) * gradient)
    second.mul_(config.adam_beta2).add_((1 - config.adam_beta2) * gradient.square())
    decay = config.weight_decay if parameter.dim() >= 2 else 0.0
    parameter.mul_(1 - rate * decay)
    mean, square = first / (1 - config.adam_beta1**step), second / (1 - config.adam_beta2**step)
    parameter.sub_(rate * mean / (square.sqrt() + config.adam_eps))


def _muon(config: TrainConfig, rate: float, name: str, parameter: Tensor, gradient: Tensor, average: Tensor) -> None:
    """Jordan's rule by singular values, which its iteration moves and not their vectors; arXiv 2502.16982, eq. 4."""
    average.mul_(config.muon_momentum).add_((1 - config.muon_momentum) * gradient)
    direction = config.muon_momentum * average + (1 - config.muon_momentum) * gradient
    number = 3 if "qkv" in name else 2 if "gate_up" in name else 1
    parameter.mul_(1 - rate * config.weight_decay)
    for weight, part in zip(parameter.chunk(number), direction.double().chunk(number), strict=True):
        left, values, right = torch.linalg.svd(part, full_matrices=False)
        values = values / values.square().sum().sqrt()
        for _ in range(5):
            values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
        weight.sub_(rate * 0.2 * max(part.shape) ** 0.5 * (left * values @ right).float())


@torch.no_grad()
def _validated(config: TrainConfig, model: Transfusion, ema_model: dict[str, Tensor], validation: PackedRows) -> Measured:
    """The averaged weights on all held-out rows, at the noise of step 0; every token and every noise level alike."""
    measured = copy.deepcopy(model)
    measured.load_state_dict(ema_model)
    plain = dataclasses.replace(config.loss, snr_gamma=0.0, after_image_weight=1.0, z_loss_weight=0.0)
    batch = _batch(config, validation, np.arange(validation.num_rows), step=0, training=False)
    text, image, *places = (loss.item() for loss in _losses(measured, batch, config.seed, 0, plain))
    return Measured(text + config.image_loss_weight * image, text, image, *places)


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], start: dict[str, Tensor]) -> None:
    """Weights that moved from `start` as they should, but for rounding."""
    assert found.keys() == expected.keys() == start.keys()
    for name, weight in found.items():
        moved, apart = (expected[name] - start[name]).norm().item(), (weight - expected[name]).norm().item()
        assert apart <= 1e-3 * moved, f"{name}: moved by {moved:.3g} and {apart:.3g} away from where it should be"
