"""Configuration of the autoencoder and its training; no defaults, params.yaml holds all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from components.bounds import NotNegative, Positive, Seed, Share
from model.latents.sizes import Preset

# The discriminator's last two layers take one position each of what three halvings leave; LPIPS' network halves four times.
SMALLEST_FOR_DISCRIMINATOR_PX, SMALLEST_FOR_LPIPS_PX = 24, 16


@dataclass(frozen=True, kw_only=True)
class AutoencoderLossConfig:
    """What the autoencoder is trained on; the paper (App. A) has l1, LPIPS at 1, GAN at 0.5 from step 50,000 and KL at 1e-6."""

    reconstruction: Literal["l1", "l2"]
    """Of pixels in -1..1; the paper's is l1."""
    kl_weight: NotNegative[float]
    """Of the KL term, summed over an image's latents and divided by the 3 * height * width numbers of its pixels, as LDM weighs
    it (arXiv 2112.10752); kind kl only."""
    lpips_weight: NotNegative[float]
    lpips_weights: str
    """A file, or a folder of files, that hold torchvision's VGG-16 features and the lpips package's linear layers; "" leaves
    the term out."""
    gan_weight: NotNegative[float]
    """Of the patch discriminator's term; 0 leaves it out."""
    gan_start_step: NotNegative[int]
    """The first step with it."""
    gan_adaptive: bool
    """Multiply gan_weight by the ratio of both terms' gradients at the decoder's last layer (VQGAN, eq. 7)."""


@dataclass(frozen=True, kw_only=True)
class CodesConfig:
    """The codebook of kind vq; the paper's baseline has 16,384 codes of 8 numbers, commitment 0.25, codebook loss 1."""

    number: Positive[int]
    """Codes."""
    width: Positive[int]
    """Numbers of a code, which are the latent channels."""
    commitment_weight: NotNegative[float]
    """Of the latents' distance to their codes (VQ-VAE, eq. 3)."""
    codebook_weight: Positive[float]
    """Of the codes' distance to their latents."""
    restart_every_steps: NotNegative[int]
    """Codes unused for so many steps are put where latents are; 0 never."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """The autoencoder and its training."""

    seed: Seed
    pretrained: str
    """Folder of a diffusers AutoencoderKL or VQModel to use as it is; "" trains one."""
    kind: Literal["kl", "vq"]
    """Of the one to train; vq has the codebook of `codes`."""
    preset: Preset
    """A size of model/latents/sizes.py."""
    loss: AutoencoderLossConfig
    codes: CodesConfig
    batch_size: Positive[int]
    """Images a step over all workers together."""
    max_steps: Positive[int]
    learning_rate: Positive[float]
    """The peak of a one-cycle cosine."""
    ema_decay: Share
    """Of the moving average of the weights, which is kept; 0 keeps the last weights, which one cycle has annealed already."""
    checkpoint_every_steps: Positive[int]
    """A killed stage resumes from the last of these."""
    min_psnr_db: float
    """The stage fails when held-out reconstruction falls below this."""
