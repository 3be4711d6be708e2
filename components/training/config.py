"""What can be set about training? Every field with its unit; no defaults, params.yaml holds all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from model.loss import LossOptions

Precision = Literal["auto", "float32", "bfloat16"]


def _positive(config: object, *fields: str) -> None:
    for field in fields:
        value = getattr(config, field)
        if not value > 0:
            raise ValueError(f"{field}: {value!r} must be greater than 0")


def _share(config: object, *fields: str) -> None:
    for field in fields:
        value = getattr(config, field)
        if not 0 <= value <= 1:
            raise ValueError(f"{field}: {value!r} must lie in 0..1")


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """The KL autoencoder and its training.

    pretrained: folder of a diffusers AutoencoderKL to use as it is; "" trains one.
    block_channels: channels of each resolution level; each further level halves the side.
    layers_per_block: residual layers a level.
    latent_channels: channels of one latent pixel.
    norm_groups: groups of every group norm.
    kl_weight: of the KL term beside the mean squared error of pixels in -1..1.
    batch_size: images a step; max_steps: steps; learning_rate: peak of a one-cycle cosine.
    min_psnr_db: the stage fails when held-out reconstruction falls below this.
    """

    seed: int
    pretrained: str
    block_channels: tuple[int, ...]
    layers_per_block: int
    latent_channels: int
    norm_groups: int
    kl_weight: float
    batch_size: int
    max_steps: int
    learning_rate: float
    min_psnr_db: float

    def __post_init__(self) -> None:
        _positive(self, "layers_per_block", "latent_channels", "norm_groups", "batch_size", "max_steps", "learning_rate")
        for channels in self.block_channels:
            if channels % self.norm_groups:
                raise ValueError(f"block_channels: {channels} is not a multiple of norm_groups {self.norm_groups}")


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """Which transformer to train.

    preset: a size of model/config.py. patch_side: latent pixels along a patch.
    codec: between patches and transformer, "linear" or "unet" (paper, Sec. 3.2); unet_channels: of each level of the U-Net.
    objective: what the image half learns, "flow" or the paper's "epsilon", or "v" or "x"; zero_terminal_snr: with "v" (see
        model/config.py: Process).
    experts: "shared" weights (the paper), or text's and images' own "feed_forward" layers, or "full".
    qk_norm: normalise queries and keys of each head.
    """

    preset: Literal["tiny", "demo", "0.16b", "0.37b", "0.76b", "1.4b", "7b"]
    patch_side: Literal[1, 2, 4, 8]
    codec: Literal["linear", "unet"]
    unet_channels: tuple[int, ...]
    objective: Literal["epsilon", "v", "flow", "x"]
    zero_terminal_snr: bool
    experts: Literal["shared", "feed_forward", "full"]
    qk_norm: bool

    def __post_init__(self) -> None:
        if self.zero_terminal_snr and self.objective != "v":
            raise ValueError(f"zero_terminal_snr: goes with objective v, not {self.objective}")
        if self.codec == "unet" and not self.unet_channels:
            raise ValueError("unet_channels: the codec unet needs the channels of each level, the finest first: [64, 128]")


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
    precision: of matrix products; weights are float32. "auto" is bfloat16 where the machine has instructions for it.
    compile: the model, by torch.compile (model/compiled.py): seconds to minutes once a run, then faster steps. "auto" is "on"
        with a CUDA GPU, which is where it pays.
    ema_decay: of the averaged weights, which are the ones evaluated and exported.
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
    ema_decay: float
    precision: Precision
    compile: Literal["auto", "on", "off"]
    checkpoint_every_steps: int
    sample_every_steps: int
    log_every_steps: int
    validate_every_steps: int
    sampling: SamplingConfig

    def __post_init__(self) -> None:
        _positive(self, "batch_rows", "max_steps", "learning_rate", "clip_norm", "adam_eps")
        _positive(self, "checkpoint_every_steps", "sample_every_steps", "log_every_steps", "validate_every_steps")
        _share(self, "image_first_time_limit", "caption_dropout", "ema_decay", "adam_beta1", "adam_beta2")
        if not 0 <= self.warmup_steps < self.max_steps:
            raise ValueError(f"warmup_steps: {self.warmup_steps} must lie in 0..max_steps - 1 = {self.max_steps - 1}")
