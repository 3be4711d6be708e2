"""What the autoencoder's training changes, as it is before the first step."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor

from components.training.autoencoder.config import AutoencoderConfig
from components.training.autoencoder.discriminator import PatchDiscriminator
from components.training.checkpoints import Trained
from core.errors import BadInput
from model.latents.autoencoder import Autoencoder, QuantisedAutoencoder
from model.latents.sizes import PRESETS

# A fresh posterior has deviation 1, as loud as the latents it is drawn around; from e^-3 on, learning begins at once.
FIRST_LOG_VARIANCE = -6.0


class AutoencoderState(NamedTuple):
    """The autoencoder, its optimiser and what is trained or counted beside it."""

    autoencoder: Autoencoder
    optimiser: torch.optim.AdamW
    ema_model: Autoencoder | None
    """The moving average of its weights, or None without."""
    discriminator: Trained | None
    """None without the adversarial term."""
    code_counts: Tensor
    """How often each code was the nearest since the last restart, int64 [K]; empty for kind kl."""

    def networks(self) -> dict[str, Trained]:
        """Those that there are."""
        found = {"autoencoder": Trained(self.autoencoder, [self.optimiser]), "discriminator": self.discriminator}
        found["ema_model"] = Trained(self.ema_model) if self.ema_model is not None else None
        return {name: trained for name, trained in found.items() if trained is not None}

    def others(self) -> dict[str, Tensor]:
        """The counts of codes."""
        return {"code_counts": self.code_counts}


def fresh_autoencoder(config: AutoencoderConfig, side_px: int) -> Autoencoder:
    """An untrained one for images of side_px, its weights those of the seed; BadInput where its levels do not fit."""
    size = PRESETS[config.preset]
    if side_px % 2**size.num_halvings:
        raise BadInput(
            f"autoencoder.preset {config.preset} halves the side {size.num_halvings} times, and {side_px} px cannot be"
        )
    torch.manual_seed(config.seed)
    if config.kind == "vq":
        codes = config.codes
        return QuantisedAutoencoder.with_codes(size, num_codes=codes.number, code_dim=codes.width, sample_side_px=side_px)
    autoencoder = Autoencoder.create(**size._asdict(), sample_side_px=side_px)
    to_moments = autoencoder.network.quant_conv
    with torch.no_grad():
        to_moments.weight[size.latent_channels :] = 0
        to_moments.bias[size.latent_channels :] = FIRST_LOG_VARIANCE
    return autoencoder


def new_state(config: AutoencoderConfig, side_px: int, device: torch.device) -> AutoencoderState:
    """Everything before the first step."""
    autoencoder = fresh_autoencoder(config, side_px).to(device)
    discriminator = None
    if config.loss.gan_weight:
        network = PatchDiscriminator().to(device)
        optimiser = torch.optim.AdamW(network.parameters(), betas=(0.5, 0.9), weight_decay=0.0, fused=True)
        discriminator = Trained(network, [optimiser])
    return AutoencoderState(
        autoencoder=autoencoder,
        optimiser=torch.optim.AdamW(autoencoder.parameters(), betas=(0.9, 0.95), weight_decay=0.0, fused=True),
        ema_model=copy.deepcopy(autoencoder).requires_grad_(False) if config.ema_decay else None,
        discriminator=discriminator,
        code_counts=torch.zeros(config.codes.number if config.kind == "vq" else 0, dtype=torch.int64, device=device),
    )
