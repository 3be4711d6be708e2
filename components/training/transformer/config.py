"""Configuration of the transformer's training; no defaults, params.yaml holds all."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from components.bounds import NotNegative, Positive, Seed, Share, different, rule
from components.training.parallel import Parallel
from components.training.precision import Precision
from model.config import Experts, PatchLayersKind, PredictionType, Preset
from model.loss_options import LossOptions

Channels = Annotated[tuple[int, ...], rule(lambda channels: all(each >= 1 for each in channels), "must be at least 1 each")]
Prompts = Annotated[
    tuple[str, ...],
    rule(
        lambda prompts: all(prompt.strip() for prompt in prompts),
        "must hold no caption that is empty",
    ),
]
Levels = Annotated[
    tuple[float, ...],
    rule(lambda levels: levels and all(0 < level < 1 for level in levels), "must hold at least one, each above 0 and below 1"),
    different("noise levels"),
]
ActivationCheckpointing = Literal["none", "selective", "full"]
Pretrained = Annotated[
    str,
    rule(
        lambda start: not start.startswith("models:") or bool(re.fullmatch(r"models:/[^/@]+/\d+", start)),
        "must name a registered version by its number, as models:/transfusion/3 does: an alias moves on, maybe to what is"
        " trained here",
    ),
]
A_WEEK_S = 7 * 24 * 3600
Figure = Literal["loss", "text", "text_after_image", "text_elsewhere", "image", "caption_gap"]
DecayRatio = Annotated[float, rule(lambda share: 0 < share <= 1, "must lie above 0 and at most at 1")]
Beta = Annotated[float, rule(lambda value: 0 <= value < 1, "must be at least 0 and below 1, or the average never moves")]


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """Which transformer to train."""

    preset: Preset
    """A size of model/config.py."""
    patch_side: Literal[1, 2, 4, 8]
    """Latent pixels along a patch."""
    patch_layers: PatchLayersKind
    """Between patches and transformer (paper, Sec. 3.2)."""
    unet_channels: Channels
    """Of each level of the U-Net, the finest first; unused by "linear"."""
    prediction_type: PredictionType
    """What the image half learns, "flow" or the paper's "epsilon", or another of model/config.py: DiffusionProcess."""
    zero_terminal_snr: bool
    """With "v" alone."""
    experts: Experts
    """"shared" weights (the paper), or text's and images' own "feed_forward" layers, or "full"."""
    qk_norm: bool
    """Normalise queries and keys of each head."""

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


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How images are generated while training."""

    prompts: Prompts
    """Fixed captions, the same every time; none: the first four different ones of the validation split."""
    guidance_scale: Positive[float]
    """1 is none."""
    num_steps: Positive[int]
    """Solver steps an image."""


@dataclass(frozen=True, kw_only=True)
class HeldOutImagesConfig:
    """What a validation measures on held-out images, beside the losses on held-out rows."""

    num_documents: Positive[int]
    """With an image, spread evenly over those of the validation split."""
    noise_levels: Levels
    """Times of the cosine schedule, whatever the prediction type, at which the error of the clean latent is measured."""


@dataclass(frozen=True, kw_only=True)
class SelectionConfig:
    """Which weights training hands on, and when it ends."""

    weights: Literal["last", "best"]
    """Those after the last step, or those of the validation with the best figure."""
    figure: Figure
    """A column of reports/train/validation.csv; lower is better, and of caption_gap higher. Read by "best" and by patience."""
    patience: NotNegative[int]
    """Training ends after so many validations without an improvement; 0: at max_steps."""
    min_improvement: NotNegative[float]
    """What counts as one for patience, in the figure's unit; "best" takes any."""

    @property
    def is_used(self) -> bool:
        """Whether anything depends on the figure."""
        return self.weights == "best" or self.patience > 0


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """How the learning rate goes on after its warm-up."""

    kind: Literal["cosine", "wsd"]
    """"cosine" (the paper): it falls from the first step after the warm-up. "wsd" (warm-up, stable, decay; MiniCPM, arXiv
    2404.06395): it stays, and falls at the end, so that a longer training only stays longer."""
    decay_ratio: DecayRatio
    """Of "wsd": the share of max_steps, the last ones, over which it falls."""
    decay_type: Literal["linear", "sqrt"]
    """Of "wsd": in a straight line, or as 1 - sqrt(share done), fast at first (arXiv 2405.18392, Sec. 3)."""


@dataclass(frozen=True, kw_only=True)
class LearningRateScales:
    """What the learning rate is multiplied by for a part of the model; 0 freezes it: no moments and no decay."""

    text: NotNegative[float]
    """What text alone goes through: embedding, head, and its experts where it has some."""
    images: NotNegative[float]
    """What images alone go through: patch layers, with U-Net and time embedding, and their experts."""
    shared: NotNegative[float]
    """The rest of the blocks, and the last norm."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Training of the transformer."""

    seed: Seed
    pretrained: Pretrained
    """Weights to begin with: the folder of a bundle, a registered version (models:/<name>/<number>), or the folder of a text
    model in Hugging Face's Llama layout; "" draws them from the seed."""
    model: ModelChoice
    batch_rows: Positive[int]
    """Packed rows of one optimiser step over all workers together."""
    micro_batch_rows: NotNegative[int]
    """Most rows of one forward pass of one worker, which adds up the gradients of as many passes as its part of a step takes;
    0: all of them at once. It decides how much memory a step takes, and nothing that is learnt."""
    max_steps: Positive[int]
    """Optimiser steps."""
    warmup_steps: int
    """The rate rises over these from 0 to learning_rate, and then follows `schedule` to min_learning_rate at the last step."""
    learning_rate: Positive[float]
    min_learning_rate: NotNegative[float]
    schedule: ScheduleConfig
    learning_rate_scales: LearningRateScales
    weight_decay: NotNegative[float]
    """Of matrices alone."""
    optimiser: Literal["adamw", "muon"]
    """"adamw" (the paper), or "muon" for the blocks' matrices and AdamW for all else (components/training/muon.py)."""
    muon_momentum: Beta
    """Of "muon" alone."""
    adam_beta1: Beta
    adam_beta2: Beta
    adam_eps: Positive[float]
    clip_norm: Positive[float]
    """Largest global gradient norm."""
    image_loss_weight: NotNegative[float]
    """lambda of L_LM + lambda * L_image (paper, Sec. 3.2: 5)."""
    loss: LossOptions
    """What counts how much within the two. An after_image_weight above 1 makes up for captions that come first in most pairs;
    a time_shift above 1 draws noise levels closer to noise (SD3, eq. 23)."""
    image_first_time_limit: Share
    """Noise level at most this where the image precedes its caption (paper, Sec. 4.3.4: 0.5)."""
    caption_dropout: Share
    """Share of images that cannot see their caption in a step, for classifier-free guidance."""
    resample_latents: bool
    """Draw each latent anew in every step from what the autoencoder says it may be, instead of its mean."""
    ema_decay: Share
    """Of the moving average of the weights, which is evaluated and exported."""
    precision: Precision
    """Of matrix products; weights are float32. "auto" is bfloat16 where the machine has instructions for it."""
    compile: Literal["auto", "on", "off"]
    """The model, by torch.compile (model/compiled.py): seconds to minutes once a run, then faster steps. "auto" is "on" with a
    CUDA GPU, which is where it pays."""
    step_timeout_s: NotNegative[float]
    """Seconds after which a step that has not ended counts as hanging: its workers are ended and start again from the newest
    checkpoint. Ten times as long, and ten minutes at least, for the first step and for checkpoints, validations and sample
    images. 0: never."""
    parallel: Parallel
    """How several workers share the model: "ddp", whole on each of them; "fsdp", in shards; "hsdp", in shards among the workers
    of a machine. "auto" is "ddp" where 20 bytes a parameter take at most half of a device's memory, else "fsdp"."""
    activation_checkpointing: ActivationCheckpointing
    """What is computed again in the backward pass instead of being kept: nothing, all but matrix products and attention, or
    the whole block."""
    hidden_states: Literal["float32", "bfloat16"]
    """Of the sums between blocks, where products are bfloat16: half the memory traffic, and small updates are rounded away."""
    flex_attention: Literal["triton", "flash"]
    """What attention is compiled to on a GPU: "triton", or "flash" (Hopper and Blackwell, with the package flash-attn 4)."""
    checkpoint_every_steps: Positive[int]
    sample_every_steps: Positive[int]
    log_every_steps: Positive[int]
    validate_every_steps: Positive[int]
    held_out_images: HeldOutImagesConfig
    selection: SelectionConfig
    sampling: SamplingConfig

    def __post_init__(self) -> None:
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"min_learning_rate: {self.min_learning_rate!r} must not be above learning_rate {self.learning_rate!r}"
            )
        if self.step_timeout_s > A_WEEK_S:
            raise ValueError(f"step_timeout_s: {self.step_timeout_s!r} must be at most {A_WEEK_S}, a week; 0 is never")
        if not 0 <= self.warmup_steps < self.max_steps:
            raise ValueError(f"warmup_steps: {self.warmup_steps} must lie in 0..max_steps - 1 = {self.max_steps - 1}")
        if self.schedule.kind == "wsd" and self.warmup_steps + self.num_decay_steps > self.max_steps:
            raise ValueError(
                f"schedule.decay_ratio: {self.schedule.decay_ratio!r} of max_steps {self.max_steps} are {self.num_decay_steps}"
                f" steps, and the warm-up takes {self.warmup_steps}; make either shorter"
            )
        scales = self.learning_rate_scales
        if not (scales.text or scales.images or (scales.shared and self.model.experts != "full")):
            raise ValueError("learning_rate_scales: nothing is trained where every part has 0; give one of them more")

    @property
    def num_decay_steps(self) -> int:
        """Of schedule "wsd": the last steps, over which the rate falls; one at least."""
        return max(1, round(self.schedule.decay_ratio * self.max_steps))
