"""How much each part of a training step counts: options of the two losses, which model/loss.py applies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class LossOptions:
    """How much each part of a training step counts."""

    time_distribution: Literal["uniform", "logit_normal"]
    """Of noise levels before the shift: "uniform" (the paper), or "logit_normal" with time_mean and time_std (Esser et al.,
    arXiv 2403.03206, Sec. 3.1)."""
    time_mean: float
    time_std: float
    time_shift: float
    """Moves noise levels towards noise the larger it is; 1 leaves them (same, eq. 23)."""
    snr_gamma: float
    """Of min-SNR weights (Hang et al., arXiv 2303.09556); 0 is none."""
    after_image_weight: float
    """How often a token of a text behind a latent counts (Batch.after_image)."""
    z_loss_weight: float
    """Of the squared log of the softmax's sum (Chameleon, arXiv 2405.09818: 1e-5); 0 is none."""

    def __post_init__(self) -> None:
        for name in ("time_std", "time_shift", "after_image_weight"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: {getattr(self, name)!r} must be greater than 0")
        for name in ("snr_gamma", "z_loss_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: {getattr(self, name)!r} must not be negative")


# The paper's: uniform noise levels, every image and every token alike.
PLAIN = LossOptions(
    time_distribution="uniform",
    time_mean=0.0,
    time_std=1.0,
    time_shift=1.0,
    snr_gamma=0.0,
    after_image_weight=1.0,
    z_loss_weight=0.0,
)
