"""The autoencoder's training step, the restart of unused codes, and what is due after how many steps.

Every term of the loss is a mean over images, weighted by a worker's share of them, so that any number of workers takes the same
step.

Legend: N images, C latent channels, Y/X latent height/width; images are uint8 [N, height, width, 3].
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from components.runtime.progress import duration
from components.runtime.world import World
from components.training.autoencoder import losses
from components.training.autoencoder.config import AutoencoderConfig
from components.training.autoencoder.discriminator import discriminator_loss
from components.training.autoencoder.images import IMAGES_A_PASS
from components.training.autoencoder.perceptual import Lpips
from components.training.autoencoder.state import AutoencoderState
from components.training.optimiser import clip_and_step, update_ema
from components.training.precision import autocast
from components.training.trainer import Every, Trainer
from core.errors import BadInput
from core.random import generator
from core.text import counted
from model.latents.autoencoder import Autoencoder, QuantisedAutoencoder, QuantisedReconstruction, to_pixels
from model.latents.vector_quantiser import perplexity, restart_unused

LOG_EVERY_STEPS = 50
CLIP_NORM = 1.0
NUM_IMAGES_FOR_STATISTICS = 2048
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


class AutoencoderTrainer(Trainer):
    """One worker's part in the training of the autoencoder. images: of the whole split, perhaps a file mapped into memory."""

    remedy = "lower autoencoder.learning_rate"

    def __init__(
        self, config: AutoencoderConfig, state: AutoencoderState, images: np.ndarray, world: World, lpips: Lpips | None
    ) -> None:
        if config.batch_size < world.size:
            raise BadInput(
                f"autoencoder.batch_size {config.batch_size} leaves some of the {world.size} workers without an image"
            )
        super().__init__(config.max_steps)
        self.config, self.state, self.images, self.world, self.lpips = config, state, images, world, lpips
        self.autoencoder = world.parallel(state.autoencoder)
        self.discriminator = world.parallel(state.discriminator.network) if state.discriminator else None
        self.loss = torch.zeros((), device=world.device)
        self.num_steps, self.elapsed_s = 0, 0.0

    def schedule(self, say: Callable[[str], object], checkpoint: Callable[[int], object]) -> list[Every]:
        """What is due after how many steps, in this order. say: worker 0's; the others' does nothing."""
        config, restart = self.config, self.config.codes.restart_every_steps

        def gather_and_keep(step: int) -> None:
            # A checkpoint holds worker 0's counts.
            self.gather_code_counts()
            checkpoint(step)

        def at(step: int, line: str) -> None:
            say(f"step {step}/{config.max_steps} | {line}")

        num, side = len(self.images), self.images.shape[1]
        say(f"{counted(num, 'image')} of {side} px; {config.max_steps} steps of {config.batch_size}")
        restarts = [Every(restart, lambda step: at(step, self.restart_codes(step)), and_last=False)]
        return [
            # A sign of life within the first seconds; a speed of one step would be that of its warm-up.
            Every(1, lambda step: at(step, f"loss {self.mean_loss():.4f}") if self.num_steps == 1 else None, and_last=False),
            Every(LOG_EVERY_STEPS, lambda step: at(step, self.report(step))),
            *(restarts if config.kind == "vq" and restart else ()),
            Every(config.checkpoint_every_steps, gather_and_keep),
        ]

    def train_step(self, step: int) -> Tensor:
        """One optimiser step of every network; the gradient's norm is that of the autoencoder."""
        started_s, state, config = time.monotonic(), self.state, self.config
        pixels, share = self.pixels_of(step), self.share()
        adversarial = config.loss.gan_weight > 0 and step >= config.loss.gan_start_step
        with autocast("auto", self.world.device):
            result = self.autoencoder(pixels, self.noise_of(step))
            picture = share * losses.picture_loss(config, result.pixels, pixels, self.lpips)
            loss = picture + share * losses.latent_loss(config, result)
            if adversarial:
                loss = loss + self.adversarial(result.pixels, picture, share)
        # Gradients are averaged over workers, and each worker's loss is a share of one sum.
        (loss * self.world.size).backward()
        cycle = one_cycle(config, step)
        stepped = clip_and_step(state.autoencoder, [state.optimiser], clip_norm=CLIP_NORM, **cycle._asdict())
        # On the images that this step decoded, detached: the discriminator's gradient ends there.
        if adversarial:
            self.train_discriminator(pixels, result.pixels.detach(), share, cycle.learning_rate)
        if isinstance(result, QuantisedReconstruction):
            state.code_counts.add_(torch.bincount(result.codes.flatten(), minlength=len(state.code_counts)))
            self.latents = result.raw.detach().float()
        if state.ema_model is not None:
            update_ema(state.ema_model, state.autoencoder, config.ema_decay, step, stepped.skipped)
        self.loss = loss.detach()
        self.num_steps += 1
        self.elapsed_s += time.monotonic() - started_s
        return stepped.gradient_norm.double().view(1)

    def mean_loss(self) -> float:
        """Of the step, over all workers, which all ask for it."""
        return float(self.world.all_reduce(self.loss.clone()).item())

    def report(self, step: int) -> str:
        """The loss of the step over all workers, and the speed so far."""
        mean, seconds_a_step = self.mean_loss(), self.elapsed_s / self.num_steps
        left = duration(seconds_a_step * (self.max_steps - step))
        return f"loss {mean:.4f} | {self.config.batch_size / seconds_a_step:.0f} images/s | eta {left}"

    def finished(self) -> Autoencoder:
        """What is kept: the EMA weights where there are any, in eval mode, with normal latents."""
        autoencoder = (self.state.ema_model or self.state.autoencoder).eval()
        some = self.images[:: max(1, len(self.images) // NUM_IMAGES_FOR_STATISTICS)]
        measure_normalisation(autoencoder, torch.from_numpy(some.copy()))
        return autoencoder

    def adversarial(self, decoded: Tensor, picture: Tensor, share: float) -> Tensor:
        """This worker's share of the weighted adversarial term. picture: its share of the pictures' term."""
        assert self.state.discriminator is not None
        network, weight = self.state.discriminator.network, self.config.loss.gan_weight
        term = share * losses.adversarial_loss(network, decoded)
        if self.config.loss.gan_adaptive:
            last_layer = self.state.autoencoder.network.decoder.conv_out.weight
            return weight * losses.adaptive_weight(picture, term, last_layer, self.world) * term
        return weight * term

    def train_discriminator(self, pixels: Tensor, decoded: Tensor, share: float, rate: float) -> None:
        """One step of the discriminator on real and decoded images."""
        assert self.state.discriminator is not None and self.discriminator is not None
        network, optimisers = self.state.discriminator
        with autocast("auto", self.world.device):
            real, fake = self.discriminator(torch.cat([pixels, decoded.to(pixels.dtype)])).float().chunk(2)
        (discriminator_loss(real, fake) * share * self.world.size).backward()
        clip_and_step(network, optimisers, clip_norm=CLIP_NORM, learning_rate=rate)

    def restart_codes(self, step: int) -> str:
        """Move codes that were not used since the last call to latents of this step; says how many were used."""
        state = self.state
        autoencoder = state.autoencoder
        assert isinstance(autoencoder, QuantisedAutoencoder)
        self.world.all_reduce(state.code_counts)
        used = int((state.code_counts > 0).sum())
        line = f"{used} of {len(state.code_counts)} codes used, perplexity {perplexity(state.code_counts):.0f}"
        draw = torch.Generator().manual_seed(int(generator(self.config.seed, step, CODES).integers(2**63)))
        moved = restart_unused(autoencoder.codebook, state.code_counts, self.all_latents(), draw)
        # They are of where the codes were, and would pull them back there.
        moments = state.optimiser.state[autoencoder.codebook]
        for name in ("exp_avg", "exp_avg_sq"):
            moments[name][moved] = 0
        if isinstance(state.ema_model, QuantisedAutoencoder):
            with torch.no_grad():
                state.ema_model.codebook[moved] = autoencoder.codebook[moved]
        state.code_counts.zero_()
        return f"{line}, {len(moved)} moved"

    def gather_code_counts(self) -> None:
        """Worker 0, whose counts a checkpoint holds, counts for all from here on."""
        self.world.all_reduce(self.state.code_counts)
        if self.world.rank > 0:
            self.state.code_counts.zero_()

    def all_latents(self) -> Tensor:
        """The step's unquantised latents [N, C, Y, X] of all workers."""
        everything = self.latents.new_zeros(self.config.batch_size, *self.latents.shape[1:])
        everything[self.local_slice()] = self.latents
        return self.world.all_reduce(everything)

    def pixels_of(self, step: int) -> Tensor:
        """This worker's images of the step, float [n, 3, height, width] in -1..1."""
        numbers = generator(self.config.seed, step, IMAGES).integers(len(self.images), size=self.config.batch_size)
        images = np.ascontiguousarray(self.images[numbers[self.local_slice()]])
        return to_pixels(torch.from_numpy(images).to(self.world.device))

    def noise_of(self, step: int) -> Tensor:
        """This worker's part of the posterior's draw, float32 [n, C, Y, X]."""
        autoencoder, batch_size = self.state.autoencoder, self.config.batch_size
        height, width = (side // autoencoder.pixels_per_latent for side in self.images.shape[1:3])
        shape = (batch_size, autoencoder.latent_channels, height, width)
        # Drawn for all workers and then cut, so that their number changes nothing.
        noise = generator(self.config.seed, step, NOISE).standard_normal(shape, dtype=np.float32)
        return torch.from_numpy(noise[self.local_slice()]).to(self.world.device)

    def local_slice(self) -> slice:
        """This worker's images of a step."""
        return self.world.slice_of(self.config.batch_size)

    def share(self) -> float:
        """This worker's share of a step's images."""
        local = self.local_slice()
        return (local.stop - local.start) / self.config.batch_size


@torch.inference_mode()
def measure_normalisation(autoencoder: Autoencoder, images: Tensor) -> None:
    """Give every latent channel mean 0 and deviation 1 over the images, uint8 [N, height, width, 3]."""
    channels, device = autoencoder.latent_channels, next(autoencoder.parameters()).device
    autoencoder.set_normalisation(torch.zeros(channels), torch.ones(channels))
    parts = [autoencoder.encode(to_pixels(part.to(device))).double().cpu() for part in images.split(IMAGES_A_PASS)]
    raw = torch.cat(parts)
    mean, std = raw.mean((0, 2, 3)), raw.std((0, 2, 3)).clamp_min(1e-6)
    autoencoder.set_normalisation(mean.float(), std.float())
