"""How do pixels become latents and back? diffusers' AutoencoderKL, with latents normalised to mean 0 and deviation 1.

Any diffusers AutoencoderKL folder works: its latents_mean and latents_std are used where it has them, else its
shift_factor and scaling_factor, as the sd-vae family has them.

Legend: N images, C latent channels, Y/X latent height/width; pixels are float [N, 3, height, width] in -1..1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

# diffusers' own annotations name one-element tuples and legacy tensor types, so its autoencoder is untyped here.
AutoencoderKL = Any


class Moments(NamedTuple):
    """Mean and deviation of the posterior, each [N, C, Y, X]."""

    mean: Tensor
    std: Tensor


class Reconstruction(NamedTuple):
    """What training needs: pixels, and the raw posterior they were decoded from (mean and log variance)."""

    pixels: Tensor
    mean: Tensor
    log_variance: Tensor


class Autoencoder(nn.Module):
    """A KL autoencoder whose `encode` gives, and whose `decode` takes, normalised latents."""

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, network: AutoencoderKL) -> None:
        super().__init__()
        self.network = network
        mean, std = _normalisation(network)
        self.register_buffer("latent_mean", mean.view(1, -1, 1, 1), persistent=False)
        self.register_buffer("latent_std", std.view(1, -1, 1, 1), persistent=False)

    @staticmethod
    def create(
        *, block_channels: Sequence[int], layers_per_block: int, latent_channels: int, norm_groups: int, sample_side_px: int
    ) -> Autoencoder:
        """A fresh autoencoder; each block but the last halves the side."""
        import diffusers

        kind: Any = diffusers.AutoencoderKL
        return Autoencoder(
            kind(
                down_block_types=("DownEncoderBlock2D",) * len(block_channels),
                up_block_types=("UpDecoderBlock2D",) * len(block_channels),
                block_out_channels=tuple(block_channels),
                layers_per_block=layers_per_block,
                latent_channels=latent_channels,
                norm_num_groups=norm_groups,
                sample_size=sample_side_px,
                scaling_factor=1.0,
            )
        )

    @staticmethod
    def from_pretrained(folder: Path) -> Autoencoder:
        """The autoencoder of a diffusers folder, in eval mode."""
        import diffusers

        return Autoencoder(
            diffusers.AutoencoderKL.from_pretrained(folder, local_files_only=True, low_cpu_mem_usage=False)
        ).eval()

    def save_pretrained(self, folder: Path) -> None:
        """Write a diffusers folder; the normalisation stands in its config.json."""
        self.network.register_to_config(
            latents_mean=self.latent_mean.flatten().tolist(), latents_std=self.latent_std.flatten().tolist()
        )
        self.network.save_pretrained(folder)

    @property
    def latent_channels(self) -> int:
        return int(self.network.config["latent_channels"])

    @property
    def pixels_per_latent(self) -> int:
        """Pixels along the side of one latent pixel."""
        return 2 ** (len(self.network.config["block_out_channels"]) - 1)

    def set_normalisation(self, mean: Tensor, std: Tensor) -> None:
        """Take raw latents' mean and deviation, each [C], as 0 and 1 from now on."""
        self.latent_mean.copy_(mean.view(1, -1, 1, 1))
        self.latent_std.copy_(std.view(1, -1, 1, 1))

    def encode_moments(self, pixels: Tensor) -> Moments:
        """Pixels -> the normalised posterior."""
        posterior = self.network.encode(pixels).latent_dist
        return Moments((posterior.mean - self.latent_mean) / self.latent_std, posterior.std / self.latent_std)

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixels -> normalised latents [N, C, Y, X] (the posterior's mean)."""
        return self.encode_moments(pixels).mean

    def decode(self, latents: Tensor) -> Tensor:
        """Normalised latents -> pixels, not clamped."""
        return self.network.decode(latents * self.latent_std + self.latent_mean).sample

    def forward(self, pixels: Tensor, noise: Tensor) -> Reconstruction:
        """The training pass: decode a draw of the posterior. noise: standard normal [N, C, Y, X]."""
        posterior = self.network.encode(pixels).latent_dist
        decoded = self.network.decode(posterior.mean + posterior.std * noise).sample
        return Reconstruction(decoded, posterior.mean, posterior.logvar)


def to_pixels(images: Tensor) -> Tensor:
    """uint8 [N, height, width, 3] -> float pixels [N, 3, height, width] in -1..1."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_images(pixels: Tensor) -> Tensor:
    """Float pixels in -1..1 (clamped) -> uint8 [N, height, width, 3]."""
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _normalisation(network: AutoencoderKL) -> tuple[Tensor, Tensor]:
    """Raw latents' mean and deviation, each [C], by whichever convention the folder follows."""
    config, channels = network.config, network.config["latent_channels"]
    if config.get("latents_mean") is not None and config.get("latents_std") is not None:
        return torch.tensor(config["latents_mean"]), torch.tensor(config["latents_std"])
    shift, scale = config.get("shift_factor") or 0.0, config.get("scaling_factor") or 1.0
    return torch.full((channels,), float(shift)), torch.full((channels,), 1.0 / scale)
