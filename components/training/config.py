"""What can be set about training? Every field with its unit; no defaults, params.yaml holds all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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

    preset: a size of model/config.py. patch_side: latent pixels along a patch. objective: "flow", or the paper's
    "epsilon".
    """

    preset: Literal["tiny", "demo", "0.16b", "0.37b", "0.76b", "1.4b", "7b"]
    patch_side: Literal[1, 2, 4, 8]
    objective: Literal["flow", "epsilon"]


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
    after_image_weight: how often a text token after an image counts in the text loss; 4 makes up for captions that come
        first in four of five pairs.
    time_shift: draws noise levels closer to noise the larger it is; 1 draws them uniformly (SD3, eq. 23: 3).
    image_first_time_limit: noise level at most this where the image precedes its caption (paper, Sec. 4.3.4: 0.5).
    caption_dropout: share of images that cannot see their caption in a step, for classifier-free guidance.
    precision: of matrix products; weights are float32. "auto" is bfloat16 where the machine has instructions for it.
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
    after_image_weight: float
    time_shift: float
    image_first_time_limit: float
    caption_dropout: float
    ema_decay: float
    precision: Precision
    checkpoint_every_steps: int
    sample_every_steps: int
    log_every_steps: int
    validate_every_steps: int
    sampling: SamplingConfig

    def __post_init__(self) -> None:
        _positive(self, "batch_rows", "max_steps", "learning_rate", "clip_norm", "adam_eps", "time_shift", "after_image_weight")
        _positive(self, "checkpoint_every_steps", "sample_every_steps", "log_every_steps", "validate_every_steps")
        _share(self, "image_first_time_limit", "caption_dropout", "ema_decay", "adam_beta1", "adam_beta2")
        if not 0 <= self.warmup_steps < self.max_steps:
            raise ValueError(f"warmup_steps: {self.warmup_steps} must lie in 0..max_steps - 1 = {self.max_steps - 1}")
