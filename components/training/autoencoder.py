"""How is the autoencoder trained and judged? By squared error and a little KL; by PSNR on images it never saw.

The paper's has an absolute, a perceptual and an adversarial term (Transfusion, arXiv 2408.11039, App. A). On mostly
black pictures the absolute error's median is black and learning stalls there (19.8 dB where the squared error reaches
28.2 dB); photographs are better served by a pretrained autoencoder, which the stage takes as it is.

Legend: N images, C latent channels, Y/X latent height/width.
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from components.data.documents import read_documents
from components.data.images import decode_png
from components.runtime.failure import BadInput
from components.training.config import AutoencoderConfig
from components.training.precision import autocast
from components.training.progress import duration
from model.autoencoder import Autoencoder, to_images, to_pixels

# Images beyond this are not read: the autoencoder needs a sample of the corpus, and all of it may not fit in memory.
MAX_BYTES_IN_MEMORY = 2**30
NUM_IMAGES_FOR_STATISTICS = 2048
LOG_EVERY_STEPS = 50
PIXELS_A_THREAD = 16384
# A fresh posterior has deviation 1, as loud as the latents it is drawn around; from e^-3 on, learning begins at once.
FIRST_LOG_VARIANCE = -6.0


def read_images(documents: Path, split: str) -> Tensor:
    """All images of a split, uint8 [N, height, width, 3], as far as they fit in MAX_BYTES_IN_MEMORY; at least one."""
    images, num_bytes = [], 0
    for document in read_documents(documents, split):
        for data in document.images:
            images.append(decode_png(data))
            num_bytes += images[-1].nbytes
        if num_bytes > MAX_BYTES_IN_MEMORY:
            print(f"autoencoder: the first {len(images)} images of {split} are used", flush=True)
            break
    if not images:
        raise BadInput(f"{documents / split} holds no image for the autoencoder; give ingest a corpus with images")
    return torch.from_numpy(np.stack(images))


def train_autoencoder(config: AutoencoderConfig, images: Tensor, device: torch.device) -> Autoencoder:
    """A trained autoencoder in eval mode, its normalisation measured. images: uint8 [N, height, width, 3]."""
    torch.manual_seed(config.seed)
    torch.set_num_threads(num_threads(config.batch_size * images.shape[1] * images.shape[2]))
    autoencoder = _fresh(config, side_px=images.shape[1]).to(device)
    optimiser = torch.optim.AdamW(
        autoencoder.parameters(), lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True
    )
    # Torch divides by the warm-up's length less one, so very short runs get two steps of it.
    num_steps = max(3, config.max_steps)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.learning_rate, total_steps=num_steps, pct_start=max(0.1, 2 / num_steps)
    )
    chooser = torch.Generator().manual_seed(config.seed)
    started_s = time.monotonic()
    for step in range(1, config.max_steps + 1):
        pixels = to_pixels(images[torch.randint(len(images), (config.batch_size,), generator=chooser)].to(device))
        loss = _loss(autoencoder, pixels, config.kl_weight)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(autoencoder.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % LOG_EVERY_STEPS == 0 or step == config.max_steps:
            _log(step, config, loss.item(), time.monotonic() - started_s)
    autoencoder.eval()
    measure_normalisation(autoencoder, images)
    return autoencoder


@torch.inference_mode()
def measure_normalisation(autoencoder: Autoencoder, images: Tensor) -> None:
    """Give every latent channel mean 0 and deviation 1 over (a sample of) the images, uint8 [N, height, width, 3]."""
    channels = autoencoder.latent_channels
    autoencoder.set_normalisation(torch.zeros(channels), torch.ones(channels))
    raw = torch.cat([autoencoder.encode(part).double().cpu() for part in _pixel_batches(autoencoder, _sample(images))])
    mean, std = raw.mean((0, 2, 3)), raw.std((0, 2, 3)).clamp_min(1e-6)
    autoencoder.set_normalisation(mean.float(), std.float())


@torch.inference_mode()
def reconstruct(autoencoder: Autoencoder, images: Tensor) -> Tensor:
    """Encode and decode again; uint8 [N, height, width, 3] to the same."""
    parts = [to_images(autoencoder.decode(autoencoder.encode(part))).cpu() for part in _pixel_batches(autoencoder, images)]
    return torch.cat(parts)


def psnr_db(reconstructed: Tensor, images: Tensor) -> float:
    """Peak signal-to-noise ratio over all images together, in dB; both uint8 of one shape."""
    error = (reconstructed.double() - images.double()).square().mean().item()
    return 10 * math.log10(255**2 / max(error, 1e-9))


def num_threads(pixels_a_step: int) -> int:
    """Threads that are worth starting: eight images of 32 x 32 take 0.075 s of one core, and of two cores 0.156 s."""
    return max(1, min(os.cpu_count() or 1, pixels_a_step // PIXELS_A_THREAD))


def _fresh(config: AutoencoderConfig, side_px: int) -> Autoencoder:
    factor = 2 ** (len(config.block_channels) - 1)
    if side_px % factor:
        raise BadInput(
            f"autoencoder.block_channels halves the side {factor.bit_length() - 1} times, and {side_px} px cannot be"
        )
    autoencoder = Autoencoder.create(
        block_channels=config.block_channels,
        layers_per_block=config.layers_per_block,
        latent_channels=config.latent_channels,
        norm_groups=config.norm_groups,
        sample_side_px=side_px,
    )
    to_moments = autoencoder.network.quant_conv
    assert to_moments is not None and to_moments.bias is not None
    with torch.no_grad():
        to_moments.weight[config.latent_channels :] = 0
        to_moments.bias[config.latent_channels :] = FIRST_LOG_VARIANCE
    return autoencoder


def _loss(autoencoder: Autoencoder, pixels: Tensor, kl_weight: float) -> Tensor:
    """Squared error of a drawn reconstruction, and the KL to a standard normal, summed over an image's latents."""
    side = pixels.shape[-1] // autoencoder.pixels_per_latent
    noise = torch.randn(len(pixels), autoencoder.latent_channels, side, side, device=pixels.device)
    with autocast("auto", pixels.device):
        result = autoencoder(pixels, noise)
    mean, log_variance = result.mean.float(), result.log_variance.float()
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum((1, 2, 3)).mean()
    return F.mse_loss(result.pixels.float(), pixels) + kl_weight * kl


def _pixel_batches(autoencoder: Autoencoder, images: Tensor) -> list[Tensor]:
    device = next(autoencoder.parameters()).device
    return [to_pixels(part.to(device)) for part in images.split(256)]


def _sample(images: Tensor) -> Tensor:
    return images[:: max(1, len(images) // NUM_IMAGES_FOR_STATISTICS)]


def _log(step: int, config: AutoencoderConfig, loss: float, elapsed_s: float) -> None:
    rate = step * config.batch_size / elapsed_s
    left_s = elapsed_s / step * (config.max_steps - step)
    print(f"step {step}/{config.max_steps} | loss {loss:.4f} | {rate:.0f} images/s | eta {duration(left_s)}", flush=True)
