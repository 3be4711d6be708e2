"""Training of the autoencoder by one process or several, resumed after a kill.

Photographs are better served by a pretrained autoencoder, which the stage takes as it is.
"""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from components.runtime.allocator import keep_freed_memory
from components.runtime.cluster import device
from components.runtime.code_digest import code_digest
from components.runtime.devices import devices, num_training_workers
from components.runtime.workers import printed
from components.runtime.world import World
from components.training.autoencoder.config import SMALLEST_FOR_DISCRIMINATOR_PX, SMALLEST_FOR_LPIPS_PX, AutoencoderConfig
from components.training.autoencoder.images import read_images, save_images
from components.training.autoencoder.perceptual import load_lpips
from components.training.autoencoder.state import fresh_autoencoder
from components.training.autoencoder.worker import FINISHED, AutoencoderRun, train
from core.errors import BadInput
from core.files import digest, sha256
from core.manifest import MANIFEST
from model.latents.autoencoder import Autoencoder

# What decides the weights.
CODE = "components.training.autoencoder.trainer"
# A step of fewer pixels is over before several workers, or several threads, have told each other what they found.
PIXELS_A_WORKER, PIXELS_A_THREAD = 16384, 16384


def train_autoencoder(config: AutoencoderConfig, documents: Path, work: Path) -> Autoencoder:
    """A trained autoencoder in eval mode, its normalisation measured.

    documents: the folder whose split "train" has the images. work: keeps what is unfinished; see `work_folder`.
    """
    work.mkdir(parents=True, exist_ok=True)
    run = AutoencoderRun(config=_with_absolute_paths(config), folder=work.absolute())
    if not run.is_finished(FINISHED):
        if not run.images.exists():
            save_images(run.images, read_images(documents, "train").numpy())
        _train(run)
    return Autoencoder.from_pretrained(run.finished)


def work_folder(config: AutoencoderConfig, documents: Path, parent: Path) -> Path:
    """Where this training keeps what is unfinished: below `parent`, one folder where documents, settings and code are equal.

    Neither the floor nor the interval of checkpoints changes weights.
    """
    facts = {
        "config": asdict(replace(config, min_psnr_db=0.0, checkpoint_every_steps=1)),
        "documents": sha256(documents / MANIFEST),
        "code": code_digest(CODE),
    }
    return parent / digest(facts)[:16]


def num_workers(config: AutoencoderConfig, side_px: int) -> int:
    """As many as for the transformer, but on a CPU one where a step is too small to be divided, unless it is asked for.

    Eight images of 32 x 32 take 0.059 s of a core and four take 0.039 s: two workers save less than Ray's start costs.
    """
    asked_for = "TRANSFUSION_NUM_WORKERS" in os.environ or devices().num_gpus > 0
    most = config.batch_size if asked_for else config.batch_size * side_px**2 // PIXELS_A_WORKER
    return max(1, min(num_training_workers(), most))


def num_threads(pixels_a_step: int) -> int:
    """Threads that are worth starting: eight images of 32 x 32 take 0.075 s of one core, and of two cores 0.156 s."""
    return max(1, min(os.cpu_count() or 1, pixels_a_step // PIXELS_A_THREAD))


def _train(run: AutoencoderRun) -> None:
    config, side_px = run.config, np.load(run.images, mmap_mode="r").shape[1]
    _check(config, side_px)
    workers = num_workers(config, side_px)
    if workers > 1:
        run.run_workers(train, workers)
        return
    keep_freed_memory()
    torch.set_num_threads(num_threads(config.batch_size * side_px**2))
    with printed(run.lines):
        train(run, World(0, 1, device()))


def _check(config: AutoencoderConfig, side_px: int) -> None:
    """What would fail in the workers fails here, in one sentence."""
    with torch.device("meta"):
        fresh_autoencoder(config, side_px)
    if config.loss.gan_weight and side_px < SMALLEST_FOR_DISCRIMINATOR_PX:
        smallest = SMALLEST_FOR_DISCRIMINATOR_PX
        raise BadInput(
            f"autoencoder.loss.gan_weight: its discriminator takes {smallest} px at least, not {side_px}; set it to 0"
        )
    if config.loss.lpips_weights:
        load_lpips(Path(config.loss.lpips_weights))
        if side_px < SMALLEST_FOR_LPIPS_PX:
            smallest = SMALLEST_FOR_LPIPS_PX
            raise BadInput(f'autoencoder.loss.lpips_weights: LPIPS takes {smallest} px at least, not {side_px}; set it to ""')


def _with_absolute_paths(config: AutoencoderConfig) -> AutoencoderConfig:
    """Workers run in a folder of Ray's own."""
    weights = config.loss.lpips_weights
    return replace(config, loss=replace(config.loss, lpips_weights=str(Path(weights).absolute()) if weights else ""))
