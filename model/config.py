"""What does a Transfusion model consist of? Its configuration, flat as in a Hugging Face config.json, and the presets.

Source of the paper's sizes: Transfusion, arXiv 2408.11039, table of Sec. 4.1.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Objective = Literal["flow", "epsilon"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """One model, completely. Flat, so that config.json round-trips.

    vocab_size: entries of the embedding and of the untied head, the special tokens included.
    width, num_layers, num_heads, mlp_width: the Llama block's sizes (mlp_width is SwiGLU's hidden width).
    latent_channels: channels of one latent pixel.
    patch_side: latent pixels along one side of a patch.
    objective: what the image half predicts; "flow" is the velocity of a rectified flow, "epsilon" the paper's noise.
    max_length: longest document in positions that the rotary table covers.
    qk_norm: normalise queries and keys of each head.
    *_id: the special tokens.
    """

    vocab_size: int
    width: int
    num_layers: int
    num_heads: int
    mlp_width: int
    latent_channels: int
    patch_side: int
    objective: Objective
    max_length: int
    rope_theta: float
    norm_eps: float
    qk_norm: bool
    pad_id: int
    bos_id: int
    eos_id: int
    boi_id: int
    eoi_id: int

    def __post_init__(self) -> None:
        if self.width % self.num_heads or (self.width // self.num_heads) % 2:
            raise ValueError(f"num_heads: {self.num_heads} must cut width {self.width} into even head widths")
        if self.objective not in ("flow", "epsilon"):
            raise ValueError(f"objective: {self.objective!r} is not one of 'flow', 'epsilon'")

    @property
    def head_width(self) -> int:
        return self.width // self.num_heads

    @property
    def patch_width(self) -> int:
        """Numbers in one patch: channels times patch area."""
        return self.latent_channels * self.patch_side**2

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class SizePreset(dict[str, int]):
    """width, num_layers, num_heads, mlp_width of one named size."""


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


def model_config(
    preset: str,
    *,
    vocab_size: int,
    latent_channels: int,
    patch_side: int,
    objective: Objective,
    max_length: int,
    special_ids: dict[str, int],
) -> ModelConfig:
    """The configuration of a named size for one tokenizer and one autoencoder.

    special_ids: {"pad": ..., "bos": ..., "eos": ..., "boi": ..., "eoi": ...}.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset: {preset!r} is not one of {', '.join(PRESETS)}")
    return ModelConfig(
        **PRESETS[preset],
        vocab_size=vocab_size,
        latent_channels=latent_channels,
        patch_side=patch_side,
        objective=objective,
        max_length=max_length,
        rope_theta=10_000.0,
        norm_eps=1e-5,
        qk_norm=False,
        **{f"{name}_id": token for name, token in special_ids.items()},
    )
