"""What happens in a training step of the autoencoder? The same on one worker and on many.

Images and noise of a step are pure functions of (seed, step) and are divided among the workers; every term is a mean over
images, weighted by a worker's share of them, so that any number of workers takes the same step.

Legend: N images, C latent channels, Y/X latent height/width; images are uint8 [N, height, width, 3].
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from components.runtime.progress import duration
from components.runtime.workers import World
from components.training import autoencoder_losses as losses
from components.training.autoencoder_state import State
from components.training.config import AutoencoderConfig
from components.training.discriminator import discriminator_loss
from components.training.optimiser import update_ema
from components.training.perceptual import Lpips
from components.training.precision import autocast
from core.errors import BadInput
from core.random import generator
from model.latents.autoencoder import QuantisedAutoencoder, QuantisedReconstruction, to_pixels
from model.latents.vector_quantiser import perplexity, restart_unused

LOG_EVERY_STEPS = 50
CLIP_NORM = 1.0
# What is drawn for a step: each kind of draw has a stream of its own.
IMAGES, NOISE, CODES = 0, 1, 2


class Cycle(NamedTuple):
    """AdamW's settings of one step."""

    learning_rate: float
    beta1: float


def one_cycle(config: AutoencoderConfig, step: int) -> Cycle:
    """The rate's rise and fall and the momentum's fall and rise (torch's OneCycleLR), as a function of the step from 1."""
    # The rise takes a tenth of the steps and at least two, so very short runs are the beginning of three steps.
    num_steps = max(3, config.max_steps)
    peak_at = max(0.1 * num_steps, 2) - 1
    at, peak = step - 1, config.learning_rate
    if at <= peak_at:
        done = at / peak_at
        return Cycle(_anneal(peak / 25, peak, done), _anneal(0.95, 0.85, done))
    done = (at - peak_at) / (num_steps - 1 - peak_at)
    return Cycle(_anneal(peak, peak / 25e4, done), _anneal(0.85, 0.95, done))


def _anneal(start: float, end: float, done: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * done))


class AutoencoderTrainer:
    """One worker's part in a run; `run` is the loop. images: of the whole split, perhaps a file mapped into memory."""

    def __init__(self, config: AutoencoderConfig, state: State, images: np.ndarray, world: World, lpips: Lpips | None) -> None:
        if config.batch_size < world.size:
            raise BadInput(
                f"autoencoder.batch_size {config.batch_size} leaves some of the {world.size} workers without an image"
            )
        self.config, self.state, self.images, self.world, self.lpips = config, state, images, world, lpips
        # Parallelism is put around the networks here; they know nothing of it.
        self.autoencoder = self._parallel(state.autoencoder)
        self.discriminator = self._parallel(state.discriminator.network) if state.discriminator else None

    def run(self, say: Callable[[str], None], checkpoint: Callable[[int], object], *, first_step: int) -> None:
        """Train from first_step (the first of all is 1) to config.max_steps; checkpoint(step) is called on every worker."""
        config, started_s = self.config, time.monotonic()
        for step in range(first_step, config.max_steps + 1):
            loss = self.take_step(step)
            if self.is_due(LOG_EVERY_STEPS, step):
                spent_s = time.monotonic() - started_s
                rate = (step + 1 - first_step) * config.batch_size / spent_s
                left_s = spent_s / (step + 1 - first_step) * (config.max_steps - step)
                mean = self.over_all_workers(loss).item()
                say(f"step {step}/{config.max_steps} | loss {mean:.4f} | {rate:.0f} images/s | eta {duration(left_s)}")
            if config.kind == "vq" and config.codes.restart_every_steps and step % config.codes.restart_every_steps == 0:
                say(f"step {step}/{config.max_steps} | {self.restart_codes(step)}")
            if self.is_due(config.checkpoint_every_steps, step):
                self.gather_code_counts()
                checkpoint(step)

    def is_due(self, interval: int, step: int) -> bool:
        return step % interval == 0 or step == self.config.max_steps

    def take_step(self, step: int) -> Tensor:
        """One optimiser step of every network; this worker's share of the loss of the step's images, without gradient."""
        state, config = self.state, self.config
        pixels, share = self.pixels_of(step), self.share_of(config.batch_size)
        adversarial = config.loss.gan_weight > 0 and step >= config.loss.gan_start_step
        with autocast("auto", self.world.device):
            result = self.autoencoder(pixels, self.noise_of(step))
            picture = share * losses.picture_loss(config, result.pixels, pixels, self.lpips)
            loss = picture + share * losses.latent_loss(config, result)
            if adversarial:
                loss = loss + self.adversarial(result.pixels, picture, share)
        # DistributedDataParallel averages gradients over workers, and each worker's loss is a share of one sum.
        (loss * self.world.size).backward()
        cycle = one_cycle(config, step)
        norm = _move(state.autoencoder, state.optimiser, cycle.learning_rate, cycle.beta1)
        if not torch.isfinite(norm):
            raise BadInput(f"the gradient of step {step} is not finite; lower autoencoder.learning_rate")
        if adversarial:
            self.teach_discriminator(pixels, result.pixels.detach(), share, cycle.learning_rate)
        if isinstance(result, QuantisedReconstruction):
            state.code_counts.add_(torch.bincount(result.codes.flatten(), minlength=len(state.code_counts)))
            self.latents = result.raw.detach().float()
        if state.ema_model is not None:
            update_ema(state.ema_model, state.autoencoder, config.ema_decay, step)
        return loss.detach()

    def adversarial(self, decoded: Tensor, picture: Tensor, share: float) -> Tensor:
        """This worker's share of the weighted adversarial term. picture: its share of the pictures' term."""
        assert self.state.discriminator is not None
        network, weight = self.state.discriminator.network, self.config.loss.gan_weight
        term = share * losses.adversarial_loss(network, decoded)
        if self.config.loss.gan_adaptive:
            last_layer = self.state.autoencoder.network.decoder.conv_out.weight
            return weight * losses.adaptive_weight(picture, term, last_layer) * term
        return weight * term

    def teach_discriminator(self, pixels: Tensor, decoded: Tensor, share: float, rate: float) -> None:
        """One step of the discriminator on real and decoded images."""
        assert self.state.discriminator is not None and self.discriminator is not None
        with autocast("auto", self.world.device):
            real, fake = self.discriminator(torch.cat([pixels, decoded.to(pixels.dtype)])).float().chunk(2)
        (discriminator_loss(real, fake) * share * self.world.size).backward()
        _move(*self.state.discriminator, rate)

    def restart_codes(self, step: int) -> str:
        """Move codes that were not used since the last call to latents of this step; says how many were used."""
        state = self.state
        autoencoder = state.autoencoder
        assert isinstance(autoencoder, QuantisedAutoencoder)
        self.over_all_workers(state.code_counts)
        used = int((state.code_counts > 0).sum())
        line = f"{used} of {len(state.code_counts)} codes used, perplexity {perplexity(state.code_counts):.0f}"
        generator = torch.Generator().manual_seed(int(self.draw(step, CODES).integers(2**63)))
        moved = restart_unused(autoencoder.codebook, state.code_counts, self.all_latents(), generator)
        moments = state.optimiser.state[autoencoder.codebook]
        for name in ("exp_avg", "exp_avg_sq"):
            moments[name][moved] = 0
        if isinstance(state.ema_model, QuantisedAutoencoder):
            with torch.no_grad():
                state.ema_model.codebook[moved] = autoencoder.codebook[moved]
        state.code_counts.zero_()
        return f"{line}, {len(moved)} moved"

    def gather_code_counts(self) -> None:
        """Worker 0, which writes the checkpoint, counts for all from here on."""
        self.over_all_workers(self.state.code_counts)
        if self.world.rank > 0:
            self.state.code_counts.zero_()

    def all_latents(self) -> Tensor:
        """The step's unquantised latents [N, C, Y, X] of all workers."""
        everything = self.latents.new_zeros(self.config.batch_size, *self.latents.shape[1:])
        everything[self.mine(self.config.batch_size)] = self.latents
        return self.over_all_workers(everything)

    def pixels_of(self, step: int) -> Tensor:
        """This worker's images of the step, float [n, 3, height, width] in -1..1."""
        numbers = self.draw(step, IMAGES).integers(len(self.images), size=self.config.batch_size)
        images = np.ascontiguousarray(self.images[numbers[self.mine(len(numbers))]])
        return to_pixels(torch.from_numpy(images).to(self.world.device))

    def noise_of(self, step: int) -> Tensor:
        """This worker's part of the posterior's draw, float32 [n, C, Y, X]."""
        autoencoder, batch_size = self.state.autoencoder, self.config.batch_size
        height, width = (side // autoencoder.pixels_per_latent for side in self.images.shape[1:3])
        shape = (batch_size, autoencoder.latent_channels, height, width)
        noise = self.draw(step, NOISE).standard_normal(shape, dtype=np.float32)
        return torch.from_numpy(noise[self.mine(batch_size)]).to(self.world.device)

    def draw(self, step: int, stream: int) -> np.random.Generator:
        return generator(self.config.seed, step, stream)

    def mine(self, number: int) -> slice:
        """This worker's slice of `number` things."""
        rank, size = self.world.rank, self.world.size
        return slice(number * rank // size, number * (rank + 1) // size)

    def share_of(self, number: int) -> float:
        mine = self.mine(number)
        return (mine.stop - mine.start) / number

    def over_all_workers(self, values: Tensor) -> Tensor:
        """Add the other workers' values, in place."""
        if self.world.size > 1:
            torch.distributed.all_reduce(values)
        return values

    def _parallel(self, network: nn.Module) -> nn.Module:
        if self.world.size == 1:
            return network
        return DistributedDataParallel(network, forward_sync_buffers=False, gradient_as_bucket_view=True)


def _move(network: nn.Module, optimiser: torch.optim.AdamW, rate: float, beta1: float | None = None) -> Tensor:
    """Clip, step, forget the gradient; the gradient's norm before clipping."""
    norm = nn.utils.clip_grad_norm_(network.parameters(), CLIP_NORM)
    for group in optimiser.param_groups:
        group["lr"] = rate
        if beta1 is not None:
            group["betas"] = (beta1, group["betas"][1])
    if torch.isfinite(norm):
        optimiser.step()
    optimiser.zero_grad()
    return norm
