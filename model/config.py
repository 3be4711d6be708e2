"""What a Transfusion model consists of: its configuration, with the keys of a Hugging Face config.json, and the presets.

Source of the paper's sizes: Transfusion, arXiv 2408.11039, table of Sec. 4.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, get_args

PredictionType = Literal["epsilon", "v", "flow", "x"]
PatchLayersKind = Literal["linear", "unet"]
Experts = Literal["shared", "feed_forward", "full"]
Preset = Literal["tiny", "demo", "0.015b", "0.04b", "0.16b", "0.37b", "0.76b", "1.4b", "7b"]

# Keys that config.json had before it took Hugging Face's, and what they are called now.
RENAMED = {
    "width": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "mlp_width": "intermediate_size",
    "objective": "prediction_type",
    "max_length": "max_position_embeddings",
    "norm_eps": "rms_norm_eps",
    "pad_id": "pad_token_id",
    "bos_id": "bos_token_id",
    "eos_id": "eos_token_id",
}
RENAMED_OF_MODALITY = {
    "patch": "patch_size",
    "codec": "patch_layers",
    "begin_id": "begin_token_id",
    "end_id": "end_token_id",
}


class DiffusionProcess(NamedTuple):
    """How latents are noised, and what of it the network predicts."""

    prediction_type: PredictionType
    """"epsilon" is the paper's (DDPM, cosine schedule, T = 1000, the noise), written as sigma_t * x_t + alpha_t * the network's
    output. "v" is the velocity on the same path (Salimans and Ho, arXiv 2202.00512). "flow" is rectified flow with its velocity
    (arXiv 2209.03003). "x" is rectified flow where the network predicts the clean patch (JiT, arXiv 2511.13720)."""
    zero_terminal_snr: bool = False
    """The cosine schedule ends in pure noise (arXiv 2305.08891), where the noise says nothing of the image; with "v" alone."""

    @property
    def is_flow(self) -> bool:
        """Whether the path is rectified flow's straight line, and not DDPM's."""
        return self.prediction_type in ("flow", "x")


@dataclass(frozen=True, kw_only=True)
class Modality:
    """One kind of latent that a model reads and writes."""

    name: str
    """"image", say."""
    channels: int
    """Numbers of one latent pixel."""
    patch_size: tuple[int, ...]
    """Latent pixels along each axis of a patch: (2, 2) of an image, (4,) of audio, (1, 2, 2) of a video."""
    patch_layers: PatchLayersKind
    """The layers between patches and hidden states, in and out (paper, Sec. 3.2)."""
    unet_channels: tuple[int, ...]
    """Of each level of the U-Net, the finest first; unused by "linear"."""
    begin_token_id: int
    """The token before a latent of this kind (BOI of images)."""
    end_token_id: int
    """The token after it (EOI)."""

    @property
    def patch_dim(self) -> int:
        """Numbers in one patch: channels times the patch's latent pixels."""
        return self.channels * math.prod(self.patch_size)

    def grid(self, axes: Sequence[int]) -> tuple[int, ...]:
        """Patches along each axis of a latent; axes in latent pixels."""
        return tuple(length // side for length, side in zip(axes, self.patch_size, strict=True))


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """One model, completely; config.json holds it."""

    vocab_size: int
    """Entries of the embedding and of the untied head, the special tokens included."""
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    """SwiGLU's."""
    modalities: tuple[Modality, ...]
    """The kinds of latents; the first one is the pipeline's images."""
    prediction_type: PredictionType
    zero_terminal_snr: bool
    noise_skip: bool = False
    """Whether the noised patch has a way of its own into a predicted noise, around the network; always with "epsilon", and with
    nothing else. A config.json without it is of a version that knew no skip."""
    experts: Experts
    """Weights that text and each modality have for themselves. "shared": none (the paper). "feed_forward": the feed-forward
    layers. "full": all but the attention they share (Mixture-of-Transformers, arXiv 2411.04996)."""
    qk_norm: bool
    """Normalise queries and keys of each head (Chameleon, arXiv 2405.09818, Sec. 2.2)."""
    max_position_embeddings: int
    """Positions of the longest document."""
    rope_theta: float
    rms_norm_eps: float
    pad_token_id: int
    bos_token_id: int
    eos_token_id: int

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads or self.head_dim % 2:
            raise ValueError(
                f"num_attention_heads: {self.num_attention_heads} must divide hidden_size {self.hidden_size}"
                " into heads of even size"
            )
        for name, value, allowed in (
            ("prediction_type", self.prediction_type, get_args(PredictionType)),
            ("experts", self.experts, get_args(Experts)),
            *((f"{each.name}.patch_layers", each.patch_layers, get_args(PatchLayersKind)) for each in self.modalities),
        ):
            if value not in allowed:
                raise ValueError(f"{name}: {value!r} is not one of {', '.join(map(repr, allowed))}")
        if self.zero_terminal_snr and self.prediction_type != "v":
            raise ValueError(f"zero_terminal_snr: goes with prediction_type 'v', not {self.prediction_type!r}")
        if self.noise_skip != (self.prediction_type == "epsilon"):
            raise ValueError(
                f"noise_skip: {self.noise_skip} does not go with prediction_type {self.prediction_type!r}; a model that"
                " predicts the noise without it is of an earlier version: train it anew"
            )

    @property
    def head_dim(self) -> int:
        """Numbers in one head's query, key or value."""
        return self.hidden_size // self.num_attention_heads

    @property
    def process(self) -> DiffusionProcess:
        """What model/diffusion/ needs to know."""
        return DiffusionProcess(self.prediction_type, self.zero_terminal_snr)

    @property
    def patch_dim(self) -> int:
        """Numbers in the widest modality's patch."""
        return max([0, *(modality.patch_dim for modality in self.modalities)])

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
        _refuse_renamed(values)
        try:
            modalities = tuple(
                Modality(**{**each, "patch_size": tuple(each["patch_size"]), "unet_channels": tuple(each["unet_channels"])})
                for each in values["modalities"]
            )
            return cls(**{**values, "modalities": modalities})
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a model's configuration: {error}") from None


class SizePreset(NamedTuple):
    """One named size."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int


PRESETS: dict[Preset, SizePreset] = {
    # The demonstration's: small enough for minutes on two CPU cores.
    "demo": SizePreset(256, 4, 8, 704),
    # For tests of the whole graph, where only the wiring matters.
    "tiny": SizePreset(32, 2, 2, 64),
    # For corpora between the demonstration's and the paper's, by the same rules: docs/own-corpus.md says which for which.
    "0.015b": SizePreset(384, 8, 6, 1024),
    "0.04b": SizePreset(512, 12, 8, 1536),
    # The paper's five.
    "0.16b": SizePreset(768, 16, 12, 2048),
    "0.37b": SizePreset(1024, 24, 16, 2816),
    "0.76b": SizePreset(1536, 24, 24, 4096),
    "1.4b": SizePreset(2048, 24, 16, 5632),
    "7b": SizePreset(4096, 32, 32, 11008),
}


def image_modality(
    *,
    channels: int,
    patch_side: int,
    patch_layers: PatchLayersKind,
    unet_channels: tuple[int, ...],
    begin_token_id: int,
    end_token_id: int,
) -> Modality:
    """Images, cut into square patches of patch_side latent pixels."""
    return Modality(
        name="image",
        channels=channels,
        patch_size=(patch_side, patch_side),
        patch_layers=patch_layers,
        unet_channels=unet_channels,
        begin_token_id=begin_token_id,
        end_token_id=end_token_id,
    )


def model_config(
    preset: str,
    *,
    vocab_size: int,
    modalities: tuple[Modality, ...],
    prediction_type: PredictionType,
    max_position_embeddings: int,
    special_ids: Mapping[str, int],
    zero_terminal_snr: bool = False,
    experts: Experts = "shared",
    qk_norm: bool = False,
) -> ModelConfig:
    """The configuration of a named size. special_ids: {"pad": ..., "bos": ..., "eos": ..., ...}."""
    if preset not in PRESETS:
        raise ValueError(f"preset: {preset!r} is not one of {', '.join(PRESETS)}")
    return ModelConfig(
        **PRESETS[preset]._asdict(),
        vocab_size=vocab_size,
        modalities=modalities,
        prediction_type=prediction_type,
        zero_terminal_snr=zero_terminal_snr,
        noise_skip=prediction_type == "epsilon",
        experts=experts,
        qk_norm=qk_norm,
        max_position_embeddings=max_position_embeddings,
        rope_theta=10_000.0,
        rms_norm_eps=1e-5,
        pad_token_id=special_ids["pad"],
        bos_token_id=special_ids["bos"],
        eos_token_id=special_ids["eos"],
    )


def _refuse_renamed(values: Mapping[str, Any]) -> None:
    modalities = values.get("modalities", ())
    for keys, renamed in ((values, RENAMED), *((each, RENAMED_OF_MODALITY) for each in modalities)):
        for old in renamed.keys() & set(keys):
            raise ValueError(f"{old} is now called {renamed[old]}; train the model anew with this version")
