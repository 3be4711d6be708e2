"""What does a Transfusion model consist of? Its configuration, as in a Hugging Face config.json, and the presets.

Source of the paper's sizes: Transfusion, arXiv 2408.11039, table of Sec. 4.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, get_args

Objective = Literal["epsilon", "v", "flow", "x"]
Codec = Literal["linear", "unet"]
Experts = Literal["shared", "feed_forward", "full"]


class Process(NamedTuple):
    """How latents are noised, and what of it the network predicts.

    objective: "epsilon" is the paper's (DDPM, cosine schedule, T = 1000, the noise). "v" is the velocity on the same path
        (Salimans and Ho, arXiv 2202.00512). "flow" is rectified flow with its velocity (arXiv 2209.03003). "x" is rectified
        flow where the network predicts the clean patch (JiT, arXiv 2511.13720).
    zero_terminal_snr: the cosine schedule ends in pure noise (arXiv 2305.08891); with "v" alone, for there the noise says
        nothing of the image.
    """

    objective: Objective
    zero_terminal_snr: bool = False

    @property
    def is_flow(self) -> bool:
        return self.objective in ("flow", "x")


@dataclass(frozen=True, kw_only=True)
class Modality:
    """One kind of latent that a model reads and writes.

    name: "image", say. channels: numbers of one latent pixel.
    patch: latent pixels along each axis of a patch: (2, 2) of an image, (4,) of audio, (1, 2, 2) of a video.
    codec: between patches and the transformer's width, "linear" or "unet" (paper, Sec. 3.2).
    unet_channels: of each level of the U-Net, the finest first; unused by "linear".
    begin_id, end_id: the tokens before and after a latent of this kind (BOI and EOI of images).
    """

    name: str
    channels: int
    patch: tuple[int, ...]
    codec: Codec
    unet_channels: tuple[int, ...]
    begin_id: int
    end_id: int

    @property
    def patch_width(self) -> int:
        """Numbers in one patch: channels times the patch's latent pixels."""
        return self.channels * math.prod(self.patch)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """One model, completely; config.json holds it.

    vocab_size: entries of the embedding and of the untied head, the special tokens included.
    width, num_layers, num_heads, mlp_width: the Llama block's sizes (mlp_width is SwiGLU's hidden width).
    modalities: the kinds of latents; the first one is the pipeline's images.
    objective, zero_terminal_snr: see Process.
    experts: weights that text and each modality have for themselves. "shared": none (the paper). "feed_forward": the
        feed-forward layers. "full": all but the attention they share (Mixture-of-Transformers, arXiv 2411.04996).
    qk_norm: normalise queries and keys of each head (Chameleon, arXiv 2405.09818, Sec. 2.2).
    max_length: longest document in positions that the rotary table covers.
    *_id: the special tokens.
    """

    vocab_size: int
    width: int
    num_layers: int
    num_heads: int
    mlp_width: int
    modalities: tuple[Modality, ...]
    objective: Objective
    zero_terminal_snr: bool
    experts: Experts
    qk_norm: bool
    max_length: int
    rope_theta: float
    norm_eps: float
    pad_id: int
    bos_id: int
    eos_id: int

    def __post_init__(self) -> None:
        if self.width % self.num_heads or (self.width // self.num_heads) % 2:
            raise ValueError(f"num_heads: {self.num_heads} must cut width {self.width} into even head widths")
        for name, value, allowed in (
            ("objective", self.objective, get_args(Objective)),
            ("experts", self.experts, get_args(Experts)),
            *((f"{modality.name}.codec", modality.codec, get_args(Codec)) for modality in self.modalities),
        ):
            if value not in allowed:
                raise ValueError(f"{name}: {value!r} is not one of {', '.join(map(repr, allowed))}")
        if self.zero_terminal_snr and self.objective != "v":
            raise ValueError(f"zero_terminal_snr: goes with objective 'v', not {self.objective!r}")

    @property
    def head_width(self) -> int:
        return self.width // self.num_heads

    @property
    def process(self) -> Process:
        return Process(self.objective, self.zero_terminal_snr)

    @property
    def patch_width(self) -> int:
        """Numbers in the widest modality's patch."""
        return max([0, *(modality.patch_width for modality in self.modalities)])

    @property
    def image(self) -> Modality:
        """The first modality: the images of the pipeline."""
        return self.modalities[0]

    @property
    def num_experts(self) -> int:
        """Sets of weights: one, or one for text and one for each modality."""
        return 1 if self.experts == "shared" else 1 + len(self.modalities)

    def to_dict(self) -> dict[str, Any]:
        """What config.json holds."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """The inverse of `to_dict`, also of what JSON makes of it. Raises ValueError for a key too many or too few."""
        try:
            modalities = tuple(
                Modality(**{**each, "patch": tuple(each["patch"]), "unet_channels": tuple(each["unet_channels"])})
                for each in values["modalities"]
            )
            return cls(**{**values, "modalities": modalities})
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a model's configuration: {error}") from None


class SizePreset(NamedTuple):
    """One named size."""

    width: int
    num_layers: int
    num_heads: int
    mlp_width: int


PRESETS: dict[str, SizePreset] = {
    # The demonstration's: small enough for minutes on two CPU cores.
    "demo": SizePreset(width=256, num_layers=4, num_heads=8, mlp_width=704),
    # For tests of the whole graph, where only the wiring matters.
    "tiny": SizePreset(width=32, num_layers=2, num_heads=2, mlp_width=64),
    # The paper's five.
    "0.16b": SizePreset(width=768, num_layers=16, num_heads=12, mlp_width=2048),
    "0.37b": SizePreset(width=1024, num_layers=24, num_heads=16, mlp_width=2816),
    "0.76b": SizePreset(width=1536, num_layers=24, num_heads=24, mlp_width=4096),
    "1.4b": SizePreset(width=2048, num_layers=24, num_heads=16, mlp_width=5632),
    "7b": SizePreset(width=4096, num_layers=32, num_heads=32, mlp_width=11008),
}


def image_modality(
    *, channels: int, patch_side: int, codec: Codec, unet_channels: tuple[int, ...], begin_id: int, end_id: int
) -> Modality:
    """Images, cut into square patches of patch_side latent pixels."""
    return Modality(
        name="image",
        channels=channels,
        patch=(patch_side, patch_side),
        codec=codec,
        unet_channels=unet_channels,
        begin_id=begin_id,
        end_id=end_id,
    )


def model_config(
    preset: str,
    *,
    vocab_size: int,
    modalities: tuple[Modality, ...],
    objective: Objective,
    max_length: int,
    special_ids: Mapping[str, int],
    zero_terminal_snr: bool = False,
    experts: Experts = "shared",
    qk_norm: bool = False,
) -> ModelConfig:
    """The configuration of a named size. special_ids: {"pad": ..., "bos": ..., "eos": ..., ...}."""
    if preset not in PRESETS:
        raise ValueError(f"preset: {preset!r} is not one of {', '.join(PRESETS)}")
    size = PRESETS[preset]
    return ModelConfig(
        vocab_size=vocab_size,
        width=size.width,
        num_layers=size.num_layers,
        num_heads=size.num_heads,
        mlp_width=size.mlp_width,
        modalities=modalities,
        objective=objective,
        zero_terminal_snr=zero_terminal_snr,
        experts=experts,
        qk_norm=qk_norm,
        max_length=max_length,
        rope_theta=10_000.0,
        norm_eps=1e-5,
        pad_id=special_ids["pad"],
        bos_id=special_ids["bos"],
        eos_id=special_ids["eos"],
    )
