"""One process that trains the autoencoder, from start to end: it opens the images, resumes, trains and keeps the result.

It is one of several under Ray Train, or alone in the stage's own process. All write checkpoints, and worker 0 at the end the
finished autoencoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.runtime.world import World
from components.training.autoencoder.config import AutoencoderConfig
from components.training.autoencoder.perceptual import load_lpips
from components.training.autoencoder.state import new_state
from components.training.autoencoder.trainer import AutoencoderTrainer
from components.training.run_folder import RunFolder
from core.files import fresh_folder
from core.manifest import write_manifest

# The kind of the result's manifest.
FINISHED = "finished-autoencoder"


@dataclass(frozen=True, kw_only=True)
class AutoencoderRun(RunFolder):
    """What a process that trains the autoencoder is told."""

    config: AutoencoderConfig

    @property
    def images(self) -> Path:
        """The training images, uint8 [N, height, width, 3], as NumPy keeps them."""
        return self.folder / "images.npy"


def train(run: AutoencoderRun, world: World) -> None:
    """Train from the newest usable checkpoint to the last step; worker 0 writes `run.finished`."""
    config, images = run.config, np.load(run.images, mmap_mode="r")
    state = new_state(config, images.shape[1], world.device)
    lpips = load_lpips(Path(config.loss.lpips_weights)).to(world.device) if config.loss.lpips_weights else None
    trainer = AutoencoderTrainer(config, state, images, world, lpips)
    with run.resumed(state, world) as checkpointer:
        first_step = checkpointer.first_step
        if world.rank > 0:
            state.code_counts.zero_()  # worker 0 counts what all had seen before
            trainer.run(trainer.schedule(lambda line: None, checkpointer.save), first_step=first_step)
            return
        trainer.run(trainer.schedule(run.say, checkpointer.save), first_step=first_step)
        folder = fresh_folder(run.finished)
        trainer.finished().cpu().save_pretrained(folder)
        write_manifest(folder, kind=FINISHED, step=config.max_steps)
