"""Configuration of training: every field with its unit; no defaults, params.yaml holds all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from model.loss_options import LossOptions

Precision = Literal["auto", "float32", "bfloat16"]
# The discriminator's last two layers take one position each of what three halvings leave; LPIPS' network halves four times.
SMALLEST_FOR_DISCRIMINATOR_PX, SMALLEST_FOR_LPIPS_PX = 24, 16
# What every generator takes that a seed is given to.
LARGEST_SEED = 2**32 - 1


def _positive(config: object, *fields: str) -> None:
    for field in fields:
        value = getattr(config, field)
        if not value > 0:
            raise ValueError(f"{field}: {value!r} must be greater than 0")


def _not_negative(config: object, *fields: str) -> None:
    for field in fields:
        value = getattr(config, field)
        if not value >= 0:
            raise ValueError(f"{field}: {value!r} must be at least 0")


def _share(config: object, *fields: str) -> None:
    for field in fields:
        value = getattr(config, field)
        if not 0 <= value <= 1:
            raise ValueError(f"{field}: {value!r} must lie in 0..1")


def _seed(config: AutoencoderConfig | TrainConfig) -> None:
    if not 0 <= config.seed <= LARGEST_SEED:
        raise ValueError(f"seed: {config.seed!r} must lie in 0..{LARGEST_SEED}")


@dataclass(frozen=True, kw_only=True)
class AutoencoderLossConfig:
    """What the autoencoder is trained on; the paper (App. A) has l1, LPIPS at 1, GAN at 0.5 from step 50,000 and KL at 1e-6.

    reconstruction: of pixels in -1..1, "l1" (the paper) or "l2".
    kl_weight: of the KL term, summed over an image's latents; kind kl only.
    lpips_weight: of LPIPS, with the networks of lpips_weights: a file, or a folder of files, that hold torchvision's VGG-16
        features and the lpips package's linear layers; "" leaves the term out.
    gan_weight: of the patch discriminator's term, 0 leaves it out; gan_start_step: the first step with it.
    gan_adaptive: multiply gan_weight by the ratio of both terms' gradients at the decoder's last layer (VQGAN, eq. 7).
    """

    reconstruction: Literal["l1", "l2"]
    kl_weight: float
    lpips_weight: float
    lpips_weights: str
    gan_weight: float
    gan_start_step: int
    gan_adaptive: bool

    def __post_init__(self) -> None:
        _not_negative(self, "kl_weight", "lpips_weight", "gan_weight", "gan_start_step")


@dataclass(frozen=True, kw_only=True)
class CodesConfig:
    """The codebook of kind vq; the paper's baseline has 16,384 codes of 8 numbers, commitment 0.25, codebook loss 1.

    number: codes. width: numbers of a code, which are the latent channels.
    commitment_weight, codebook_weight: of the two distances between latents and codes (VQ-VAE, eq. 3).
    restart_every_steps: codes unused for so many steps are put where latents are; 0 never.
    """

    number: int
    width: int
    commitment_weight: float
    codebook_weight: float
    restart_every_steps: int

    def __post_init__(self) -> None:
        _positive(self, "number", "width", "codebook_weight")
        _not_negative(self, "commitment_weight", "restart_every_steps")


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """The autoencoder and its training.

    pretrained: folder of a diffusers AutoencoderKL or VQModel to use as it is; "" trains one.
    kind: of the one to train, "kl", or "vq" with the codebook of `codes`.
    preset: a size of model/latents/autoencoder.py.
    batch_size: images a step over all workers together; max_steps: steps; learning_rate: peak of a one-cycle cosine.
    ema_decay: of the EMA weights, which are kept; 0 keeps the last ones, which one cycle has annealed already.
    checkpoint_every_steps: a killed stage goes on from the last of these.
    min_psnr_db: the stage fails when held-out reconstruction falls below this.
    """

    seed: int
    pretrained: str
    kind: Literal["kl", "vq"]
    preset: Literal["tiny", "demo", "86m"]
    loss: AutoencoderLossConfig
    codes: CodesConfig
    batch_size: int
    max_steps: int
    learning_rate: float
    ema_decay: float
    checkpoint_every_steps: int
    min_psnr_db: float

    def __post_init__(self) -> None:
        _seed(self)
        _positive(self, "batch_size", "max_steps", "learning_rate", "checkpoint_every_steps")
        _share(self, "ema_decay")


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """Which transformer to train.

    preset: a size of model/config.py. patch_side: latent pixels along a patch.
    patch_layers: between patches and transformer, "linear" or "unet" (paper, Sec. 3.2).
    unet_channels: of each level of the U-Net.
    prediction_type: what the image half learns, "flow" or the paper's "epsilon", or "v" or "x"; zero_terminal_snr: with "v"
        (see model/config.py: DiffusionProcess).
    experts: "shared" weights (the paper), or text's and images' own "feed_forward" layers, or "full".
    qk_norm: normalise queries and keys of each head.
    """

    preset: Literal["tiny", "demo", "0.16b", "0.37b", "0.76b", "1.4b", "7b"]
    patch_side: Literal[1, 2, 4, 8]
    patch_layers: Literal["linear", "unet"]
    unet_channels: tuple[int, ...]
    prediction_type: Literal["epsilon", "v", "flow", "x"]
    zero_terminal_snr: bool
    experts: Literal["shared", "feed_forward", "full"]
    qk_norm: bool

    def __post_init__(self) -> None:
        if self.zero_terminal_snr and self.prediction_type != "v":
            raise ValueError(f"zero_terminal_snr: goes with prediction_type v, not {self.prediction_type}")
        # Its levels are the latent's own grid and another for each halving of a patch's side.
        num_levels = self.patch_side.bit_length()
        if self.patch_layers == "unet" and len(self.unet_channels) != num_levels:
            fitting = [64 * 2**level for level in range(num_levels)]
            raise ValueError(
                f"unet_channels: {list(self.unet_channels)} must hold {num_levels} numbers with patch_layers unet at patch_side"
                f" {self.patch_side}, the channels of each level, the finest first: {fitting}, say"
            )
        if any(channels < 1 for channels in self.unet_channels):
            raise ValueError(f"unet_channels: {list(self.unet_channels)} must be at least 1 each")


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How pictures are drawn while training.

    prompts: fixed captions, drawn again each time. guidance_scale: 1 is none. num_steps: solver steps an image.
    """

    prompts: tuple[str, ...]
    guidance_scale: float
    num_steps: int

    def __post_init__(self) -> None:
        _positive(self, "guidance_scale", "num_steps")
        if not self.prompts or not all(prompt.strip() for prompt in self.prompts):
            raise ValueError(f"prompts: {list(self.prompts)!r} must hold one caption at least, and none that is empty")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Training of the transformer.

    batch_rows: packed rows of one optimiser step over all workers together.
    max_steps, warmup_steps: optimiser steps; the rate falls by a cosine from learning_rate to min_learning_rate.
    image_loss_weight: lambda of L_LM + lambda * L_image (paper, Sec. 3.2: 5 with epsilon; about 3 suits flow).
    loss: what counts how much within the two (model/loss.py: LossOptions). Its after_image_weight of 4 makes up for captions
        that come first in four of five pairs; a time_shift of 3 draws noise levels closer to noise (SD3, eq. 23).
    image_first_time_limit: noise level at most this where the image precedes its caption (paper, Sec. 4.3.4: 0.5).
    caption_dropout: share of images that cannot see their caption in a step, for classifier-free guidance.
    resample_latents: draw each latent anew in every step from what the autoencoder says it may be, instead of its mean.
    precision: of matrix products; weights are float32. "auto" is bfloat16 where the machine has instructions for it.
    compile: the model, by torch.compile (model/compiled.py): seconds to minutes once a run, then faster steps. "auto" is "on"
        with a CUDA GPU, which is where it pays.
    ema_decay: of the EMA weights, which are the ones evaluated and exported.
    clip_norm: largest global gradient norm.
    checkpoint_every_steps, sample_every_steps, log_every_steps, validate_every_steps: intervals in optimiser steps.
    """

    seed: int
    model: ModelChoice
    batch_rows: int
    max_steps: int
    warmup_steps: int
    learning_rate: float
    min_learning_rate: float
    weight_decay: float
    adam_beta1: float
    adam_beta2: float
    adam_eps: float
    clip_norm: float
    image_loss_weight: float
    loss: LossOptions
    image_first_time_limit: float
    caption_dropout: float
    resample_latents: bool
    ema_decay: float
    precision: Precision
    compile: Literal["auto", "on", "off"]
    checkpoint_every_steps: int
    sample_every_steps: int
    log_every_steps: int
    validate_every_steps: int
    sampling: SamplingConfig

    def __post_init__(self) -> None:
        _seed(self)
        _positive(self, "batch_rows", "max_steps", "learning_rate", "clip_norm", "adam_eps")
        _not_negative(self, "min_learning_rate", "weight_decay", "image_loss_weight")
        _positive(self, "checkpoint_every_steps", "sample_every_steps", "log_every_steps", "validate_every_steps")
        _share(self, "image_first_time_limit", "caption_dropout", "ema_decay", "adam_beta1", "adam_beta2")
        for field in ("adam_beta1", "adam_beta2"):
            if getattr(self, field) == 1:
                raise ValueError(f"{field}: 1 must be below 1, or the average never moves")
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"min_learning_rate: {self.min_learning_rate!r} must not be above learning_rate {self.learning_rate!r}"
            )
        if not 0 <= self.warmup_steps < self.max_steps:
            raise ValueError(f"warmup_steps: {self.warmup_steps} must lie in 0..max_steps - 1 = {self.max_steps - 1}")
