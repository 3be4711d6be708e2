"""One process that trains the autoencoder, from start to end: it opens the images, resumes, trains and keeps the result.

It runs under Ray Train (`components.runtime.workers.run_workers`), or alone in the stage's own process. Worker 0 alone
writes: the checkpoints, and at the end the finished autoencoder.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.runtime.workers import World, join_workers
from components.training.autoencoder_loop import AutoencoderTrainer
from components.training.autoencoder_state import load_checkpoint, new_state, save_checkpoint
from components.training.config import AutoencoderConfig
from components.training.perceptual import load_lpips
from components.training.run_folder import RunFolder, resume_together
from core.files import fresh_folder
from core.manifest import write_manifest
from model.latents.autoencoder import Autoencoder, to_pixels

# The kind of the result's manifest.
FINISHED = "finished-autoencoder"
NUM_IMAGES_FOR_STATISTICS = 2048
IMAGES_A_PASS = 256


@dataclass(frozen=True, kw_only=True)
class AutoencoderWork(RunFolder):
    """What a process that trains the autoencoder is told."""

    config: AutoencoderConfig

    @property
    def images(self) -> Path:
        """The training images, uint8 [N, height, width, 3], as NumPy keeps them."""
        return self.folder / "images.npy"


def run_worker(settings: dict[str, Any]) -> None:
    """The function every worker runs. settings: {"work": AutoencoderWork, "num_threads": int}."""
    work: AutoencoderWork = settings["work"]
    train_to_the_end(work, join_workers(settings["num_threads"]), work.say)


def train_to_the_end(work: AutoencoderWork, world: World, say: Callable[[str], None]) -> None:
    """Train from the newest usable checkpoint to the last step; worker 0 writes `work.finished`."""
    config, images = work.config, np.load(work.images, mmap_mode="r")
    state = new_state(config, images.shape[1], world.device)
    lpips = load_lpips(Path(config.loss.lpips_weights)).to(world.device) if config.loss.lpips_weights else None
    with work.only_writer() if world.rank == 0 else nullcontext():
        step = resume_together(work.store, partial(load_checkpoint, state=state), say, world)
        trainer = AutoencoderTrainer(config, state, images, world, lpips)
        if world.rank > 0:
            state.code_counts.zero_()  # worker 0 counts what all had seen before
            trainer.run(lambda line: None, lambda step: None, first_step=step + 1)
            return
        trainer.run(say, lambda step: save_checkpoint(work.store, state, step), first_step=step + 1)
        keep(work, state.ema_model or state.autoencoder, images)


def keep(work: AutoencoderWork, autoencoder: Autoencoder, images: np.ndarray) -> None:
    """Measure the normalisation and write the autoencoder; it counts once the manifest stands."""
    autoencoder.eval()
    measure_normalisation(autoencoder, torch.from_numpy(images[:: max(1, len(images) // NUM_IMAGES_FOR_STATISTICS)].copy()))
    folder = fresh_folder(work.finished)
    autoencoder.cpu().save_pretrained(folder)
    write_manifest(folder, kind=FINISHED, step=work.config.max_steps)


@torch.inference_mode()
def measure_normalisation(autoencoder: Autoencoder, images: Tensor) -> None:
    """Give every latent channel mean 0 and deviation 1 over the images, uint8 [N, height, width, 3]."""
    channels, device = autoencoder.latent_channels, next(autoencoder.parameters()).device
    autoencoder.set_normalisation(torch.zeros(channels), torch.ones(channels))
    parts = [autoencoder.encode(to_pixels(part.to(device))).double().cpu() for part in images.split(IMAGES_A_PASS)]
    raw = torch.cat(parts)
    mean, std = raw.mean((0, 2, 3)), raw.std((0, 2, 3)).clamp_min(1e-6)
    autoencoder.set_normalisation(mean.float(), std.float())
