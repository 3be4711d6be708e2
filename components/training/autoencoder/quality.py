"""How well an autoencoder reconstructs images: their PSNR, why it is low, and the use of its codes.

Legend: N images; images are uint8 [N, height, width, 3].
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from components.training.autoencoder.config import AutoencoderConfig
from components.training.autoencoder.images import IMAGES_A_PASS
from model.latents.autoencoder import Autoencoder, QuantisedAutoencoder, to_images, to_pixels
from model.latents.vector_quantiser import perplexity


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


def commonest_cause(config: AutoencoderConfig) -> str:
    """What is most often behind a low PSNR, and what to do about it."""
    if config.pretrained:
        return f"{config.pretrained} was made for other pictures; take another, or lower the bound"
    return (
        f"{config.max_steps} steps were too few, or the pictures hold more detail than the preset {config.preset} keeps; raise"
        " autoencoder.max_steps, take a larger autoencoder.preset or an autoencoder.pretrained, or lower the bound"
    )
