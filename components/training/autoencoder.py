"""Training of the autoencoder by one process or several, resumed after a kill, and its PSNR on images held out.

Photographs are better served by a pretrained autoencoder, which the stage takes as it is.

Legend: N images; images are uint8 [N, height, width, 3].
"""

from __future__ import annotations

import math
import os
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from components.data.documents import read_documents
from components.runtime.cluster import device, num_training_workers, start_ray
from components.runtime.workers import World, run_workers
from components.training.autoencoder_state import fresh_autoencoder
from components.training.autoencoder_worker import FINISHED, IMAGES_A_PASS, AutoencoderWork, run_worker, train_to_the_end
from components.training.config import SMALLEST_FOR_DISCRIMINATOR_PX, SMALLEST_FOR_LPIPS_PX, AutoencoderConfig
from components.training.perceptual import load_lpips
from core.errors import BadInput
from core.files import atomic_write, digest, sha256
from core.manifest import MANIFEST
from core.png import decode_png
from model.latents.autoencoder import Autoencoder, QuantisedAutoencoder, to_images, to_pixels
from model.latents.vector_quantiser import perplexity

ROOT = Path(__file__).resolve().parents[2]
# The code that decides what is learnt: checkpoints of other code must not be gone on from.
CODE = (
    "components/runtime/workers.py",
    "components/training/autoencoder*.py",
    "components/training/discriminator.py",
    "components/training/optimiser.py",
    "components/training/perceptual.py",
    "components/training/precision.py",
    "components/training/run_folder.py",
    "core/random.py",
    "model/latents/autoencoder.py",
    "model/latents/sizes.py",
    "model/latents/vector_quantiser.py",
)
# Images beyond this are not read: the autoencoder needs a sample of the corpus.
MAX_BYTES_OF_IMAGES = 2**30
# A step of fewer pixels is over before several workers, or several threads, have told each other what they found.
PIXELS_A_WORKER, PIXELS_A_THREAD = 16384, 16384


def train_autoencoder(config: AutoencoderConfig, documents: Path, work: Path) -> Autoencoder:
    """A trained autoencoder in eval mode, its normalisation measured.

    documents: the folder whose split "train" has the images. work: keeps what is unfinished; see `work_folder`.
    """
    work.mkdir(parents=True, exist_ok=True)
    unfinished = AutoencoderWork(config=_with_absolute_paths(config), folder=work.absolute())
    if not unfinished.is_finished(FINISHED):
        if not unfinished.images.exists():
            _save(unfinished.images, read_images(documents, "train").numpy())
        _train(unfinished)
    return Autoencoder.from_pretrained(unfinished.finished)


def work_folder(config: AutoencoderConfig, documents: Path, parent: Path) -> Path:
    """Where this training keeps what is unfinished: below `parent`, one folder where documents, settings and code are equal.

    Neither the floor nor the interval of checkpoints changes weights.
    """
    facts = {
        "config": asdict(replace(config, min_psnr_db=0.0, checkpoint_every_steps=1)),
        "documents": sha256(documents / MANIFEST),
        "code": [sha256(path) for pattern in CODE for path in sorted(ROOT.glob(pattern))],
    }
    return parent / digest(facts)[:16]


def read_images(documents: Path, split: str) -> Tensor:
    """All images of a split as far as they fit in MAX_BYTES_OF_IMAGES; at least one."""
    images, num_bytes = [], 0
    for document in read_documents(documents, split):
        for data in document.images:
            images.append(decode_png(data))
            num_bytes += images[-1].nbytes
        if num_bytes > MAX_BYTES_OF_IMAGES:
            print(f"autoencoder: the first {len(images)} images of {split} are used", flush=True)
            break
    if not images:
        raise BadInput(f"{documents / split} holds no image for the autoencoder; give ingest a corpus with images")
    return torch.from_numpy(np.stack(images))


@torch.inference_mode()
def reconstruct(autoencoder: Autoencoder, images: Tensor) -> Tensor:
    """Encode and decode again; images to images."""
    where = next(autoencoder.parameters()).device
    parts = [to_pixels(part.to(where)) for part in images.split(IMAGES_A_PASS)]
    return torch.cat([to_images(autoencoder.decode(autoencoder.encode(part))).cpu() for part in parts])


def psnr_db(reconstructed: Tensor, images: Tensor) -> float:
    """Peak signal-to-noise ratio over all images together, in dB."""
    error = (reconstructed.double() - images.double()).square().mean().item()
    return 10 * math.log10(255**2 / max(error, 1e-9))


@torch.inference_mode()
def code_use(autoencoder: Autoencoder, images: Tensor) -> dict[str, float]:
    """How many codes the images take, and their perplexity; nothing where the autoencoder has no codes."""
    if not isinstance(autoencoder, QuantisedAutoencoder):
        return {}
    where, counts = next(autoencoder.parameters()).device, torch.zeros(len(autoencoder.codebook), dtype=torch.int64)
    for part in images.split(IMAGES_A_PASS):
        counts += torch.bincount(autoencoder.encode_codes(to_pixels(part.to(where))).flatten().cpu(), minlength=len(counts))
    return {
        "num_codes": len(counts),
        "num_codes_used": int((counts > 0).sum()),
        "code_perplexity": round(perplexity(counts), 2),
    }


def num_workers(config: AutoencoderConfig, side_px: int) -> int:
    """As many as for the transformer, but on a CPU one where a step is too small to be divided, unless it is asked for.

    Eight images of 32 x 32 take 0.059 s of a core and four take 0.039 s: two workers save less than Ray's start costs.
    """
    asked_for = "TRANSFUSION_NUM_WORKERS" in os.environ or torch.cuda.is_available()
    most = config.batch_size if asked_for else config.batch_size * side_px**2 // PIXELS_A_WORKER
    return max(1, min(num_training_workers(), most))


def num_threads(pixels_a_step: int) -> int:
    """Threads that are worth starting: eight images of 32 x 32 take 0.075 s of one core, and of two cores 0.156 s."""
    return max(1, min(os.cpu_count() or 1, pixels_a_step // PIXELS_A_THREAD))


def _save(path: Path, images: np.ndarray) -> None:
    """As np.save does, but a full disk is told by the system's error number, which np.save leaves out."""
    with atomic_write(path) as partial, partial.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(images))
        file.write(np.ascontiguousarray(images).data)


def _train(work: AutoencoderWork) -> None:
    config, side_px = work.config, np.load(work.images, mmap_mode="r").shape[1]
    _check(config, side_px)
    workers = num_workers(config, side_px)
    if workers == 1:
        torch.set_num_threads(num_threads(config.batch_size * side_px**2))
        train_to_the_end(work, World(0, 1, device()), say=_print)
        return
    with start_ray():
        run_workers(
            run_worker,
            {"work": work},
            num_workers=workers,
            store=work.store,
            lines=work.lines,
            reached=work.newest_step,
        )


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


def _print(line: str) -> None:
    print(line, flush=True)
