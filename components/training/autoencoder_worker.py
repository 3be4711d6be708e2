"""What does one process that trains the autoencoder do from start to end? Opens the images, resumes, trains, keeps the result.

It runs under Ray Train (`components.runtime.workers.run_workers`), or alone in the stage's own process. Worker 0 alone
writes: the checkpoints, and at the end the finished autoencoder.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.runtime.files import fresh_folder, write_manifest
from components.training.autoencoder_loop import AutoencoderTrainer, World
from components.training.autoencoder_state import new_state, resume, save_checkpoint
from components.training.config import AutoencoderConfig
from components.training.perceptual import load_lpips
from model.latents.autoencoder import Autoencoder, to_pixels

FINISHED = "finished-autoencoder"
NUM_IMAGES_FOR_STATISTICS = 2048
IMAGES_A_PASS = 256

# (step, the checkpoint's folder; None from a worker that did not write it)
Report = Callable[[int, Path | None], None]


@dataclass(frozen=True, kw_only=True)
class AutoencoderWork:
    """What a process is told. folder: absolute, where the run keeps what has to survive a kill."""

    config: AutoencoderConfig
    folder: Path

    @property
    def images(self) -> Path:
        """The training images, uint8 [N, height, width, 3], as NumPy keeps them."""
        return self.folder / "images.npy"

    @property
    def store(self) -> Path:
        """The checkpoints; Ray Train keeps its own notes there too."""
        return self.folder / "run"

    @property
    def lines(self) -> Path:
        """What worker 0 says; the process that started it prints it."""
        return self.folder / "progress.log"

    @property
    def finished(self) -> Path:
        """The result, whole once its manifest stands."""
        return self.folder / "finished"

    @contextmanager
    def only_writer(self) -> Iterator[None]:
        """Wait until no other process writes here: workers outlive a killed driver by a few seconds."""
        with (self.folder / "writer.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def say(self, line: str) -> None:
        with self.lines.open("a") as file:
            file.write(line + "\n")


def run_worker(settings: dict[str, Any]) -> None:
    """The function every worker runs. settings: {"work": AutoencoderWork, "num_threads": int}."""
    from ray import train as ray_train
    from ray.train.torch import get_device

    torch.set_num_threads(settings["num_threads"])
    torch.set_float32_matmul_precision("high")
    context, device = ray_train.get_context(), get_device()
    assert isinstance(device, torch.device)
    work: AutoencoderWork = settings["work"]
    train_to_the_end(work, World(context.get_world_rank(), context.get_world_size(), device), _tell_ray, work.say)


def train_to_the_end(work: AutoencoderWork, world: World, report: Report, say: Callable[[str], None]) -> None:
    """Train from the newest usable checkpoint to the last step; worker 0 writes `work.finished`.

    report: called by every worker after every checkpoint.
    """
    config, images = work.config, np.load(work.images, mmap_mode="r")
    state = new_state(config, images.shape[1], world.device)
    lpips = load_lpips(Path(config.loss.lpips_weights)).to(world.device) if config.loss.lpips_weights else None
    if world.rank > 0:
        step = resume(work.store, state, lambda line: None)
        state.code_counts.zero_()  # worker 0 counts what all had seen before
        trainer = AutoencoderTrainer(config, state, images, world, lpips)
        trainer.run(lambda line: None, lambda step: report(step, None), first_step=step + 1)
        return
    with work.only_writer():
        step = resume(work.store, state, say)
        trainer = AutoencoderTrainer(config, state, images, world, lpips)
        trainer.run(say, lambda step: report(step, save_checkpoint(work.store, state, step)), first_step=step + 1)
        keep(work, state.averaged or state.autoencoder, images)


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


def _tell_ray(step: int, folder: Path | None) -> None:
    """Tell Ray Train of a checkpoint that stands in its store already."""
    from ray import train as ray_train

    checkpoint = ray_train.Checkpoint.from_directory(str(folder)) if folder else None
    mode = ray_train.CheckpointUploadMode.NO_UPLOAD
    ray_train.report({"step": step}, checkpoint=checkpoint, checkpoint_upload_mode=mode)
