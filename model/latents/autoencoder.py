"""Pixels to latents and back by diffusers' AutoencoderKL, with latents normalised to mean 0 and deviation 1.

Any diffusers AutoencoderKL folder works: its latents_mean and latents_std are used where it has them, else its
shift_factor and scaling_factor, as the sd-vae family has them. So does a VQModel folder, the vector-quantised twin, whose
latents are the vectors of codes (Transfusion, arXiv 2408.11039, Sec. 4.1: the discrete baseline's image tokens).

Legend: N images, C latent channels, Y/X latent height/width, K codes; pixels are float [N, 3, height, width] in -1..1.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from core.files import named
from model.latents.sizes import AutoencoderSize
from model.latents.vector_quantiser import look_up, nearest_codes, quantise

# diffusers' own annotations name one-element tuples and legacy tensor types, so its autoencoders are untyped here.
AutoencoderKL = Any
VQModel = Any

CONFIG = "config.json"


class Moments(NamedTuple):
    """Mean and deviation of the posterior, each [N, C, Y, X]."""

    mean: Tensor
    std: Tensor


class Reconstruction(NamedTuple):
    """What training needs: pixels, and the raw posterior that they were decoded from."""

    pixels: Tensor
    mean: Tensor
    log_variance: Tensor


class QuantisedReconstruction(NamedTuple):
    """What training of the quantised twin needs; fields without a word are those of Quantised."""

    pixels: Tensor
    raw: Tensor
    """What was quantised [N, C, Y, X]."""
    codes: Tensor
    commitment: Tensor
    codebook: Tensor


class Autoencoder(nn.Module):
    """A KL autoencoder whose `encode` gives, and whose `decode` takes, normalised latents."""

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, network: AutoencoderKL | VQModel) -> None:
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

        size = AutoencoderSize(tuple(block_channels), layers_per_block, latent_channels, norm_groups)
        network: Any = diffusers.AutoencoderKL
        return Autoencoder(network(latent_channels=latent_channels, **_levels(size, sample_side_px)))

    @staticmethod
    def from_pretrained(folder: Path) -> Autoencoder:
        """The autoencoder of a diffusers folder, in eval mode; a QuantisedAutoencoder where the folder holds a VQModel."""
        import diffusers

        if json.loads((folder / CONFIG).read_text()).get("_class_name") == "VQModel":
            return QuantisedAutoencoder(
                diffusers.VQModel.from_pretrained(folder, local_files_only=True, low_cpu_mem_usage=False)
            ).eval()
        return Autoencoder(
            diffusers.AutoencoderKL.from_pretrained(folder, local_files_only=True, low_cpu_mem_usage=False)
        ).eval()

    def save_pretrained(self, folder: Path) -> None:
        """Write a diffusers folder; the normalisation stands in its config.json."""
        self.network.register_to_config(
            latents_mean=self.latent_mean.flatten().tolist(), latents_std=self.latent_std.flatten().tolist()
        )
        with named(folder):
            self.network.save_pretrained(folder)
        # diffusers notes the folder that the weights were once read from: a path of this machine, in bytes that are compared.
        config = json.loads((folder / CONFIG).read_text())
        config.pop("_name_or_path", None)
        (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")

    @property
    def latent_channels(self) -> int:
        """Numbers of one latent pixel: C."""
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

    def forward(self, pixels: Tensor, noise: Tensor) -> Reconstruction | QuantisedReconstruction:
        """The training pass: decode a sample of the posterior. noise: standard normal [N, C, Y, X]."""
        posterior = self.network.encode(pixels).latent_dist
        decoded = self.network.decode(posterior.mean + posterior.std * noise).sample
        return Reconstruction(decoded, posterior.mean, posterior.logvar)


class QuantisedAutoencoder(Autoencoder):
    """An autoencoder whose latents are vectors of a codebook, so that an image is codes too.

    `encode` gives the codes' vectors, normalised; `decode` takes any latents and moves each to the nearest code first,
    because the decoder has seen nothing else.
    """

    @staticmethod
    def with_codes(size: AutoencoderSize, *, num_codes: int, code_dim: int, sample_side_px: int) -> QuantisedAutoencoder:
        """A fresh one: levels of `size`, latents of code_dim channels."""
        import diffusers

        network: Any = diffusers.VQModel
        codes = {"latent_channels": code_dim, "vq_embed_dim": code_dim, "num_vq_embeddings": num_codes}
        return QuantisedAutoencoder(network(**codes, **_levels(size, sample_side_px)))

    @property
    def latent_channels(self) -> int:
        """Numbers of one latent pixel: C."""
        return self.codebook.shape[1]

    @property
    def codebook(self) -> Tensor:
        """The codes' vectors [K, C], before normalisation."""
        return self.network.quantize.embedding.weight

    def encode_codes(self, pixels: Tensor) -> Tensor:
        """Pixels -> codes, int64 [N, Y, X]."""
        return nearest_codes(self.network.encode(pixels).latents, self.codebook)

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Codes, int64 [N, Y, X] -> pixels, not clamped."""
        return self._decode(look_up(codes, self.codebook))

    def encode_moments(self, pixels: Tensor) -> Moments:
        """Pixels -> the codes' normalised vectors, with deviation 0: there is nothing to sample."""
        vectors = look_up(self.encode_codes(pixels), self.codebook)
        return Moments((vectors - self.latent_mean) / self.latent_std, torch.zeros_like(vectors))

    def decode(self, latents: Tensor) -> Tensor:
        """Normalised latents -> pixels of the nearest codes, not clamped."""
        return self.decode_codes(nearest_codes(latents * self.latent_std + self.latent_mean, self.codebook))

    def forward(self, pixels: Tensor, noise: Tensor) -> QuantisedReconstruction:
        """The training pass: decode the nearest codes. noise: not used."""
        raw = self.network.encode(pixels).latents
        latents, codes, commitment, codebook = quantise(raw, self.codebook)
        return QuantisedReconstruction(self._decode(latents), raw, codes, commitment, codebook)

    def _decode(self, vectors: Tensor) -> Tensor:
        spatial = self.network.config["norm_type"] == "spatial"
        return self.network.decoder(self.network.post_quant_conv(vectors), vectors if spatial else None)


def to_pixels(images: Tensor) -> Tensor:
    """uint8 [N, height, width, 3] -> float pixels [N, 3, height, width] in -1..1."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_images(pixels: Tensor) -> Tensor:
    """Float pixels in -1..1 (clamped) -> uint8 [N, height, width, 3]."""
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _levels(size: AutoencoderSize, sample_side_px: int) -> dict[str, Any]:
    """What diffusers' KL and vector-quantised autoencoders are told alike."""
    return {
        "down_block_types": ("DownEncoderBlock2D",) * len(size.block_channels),
        "up_block_types": ("UpDecoderBlock2D",) * len(size.block_channels),
        "block_out_channels": tuple(size.block_channels),
        "layers_per_block": size.layers_per_block,
        "norm_num_groups": size.norm_groups,
        "sample_size": sample_side_px,
        "scaling_factor": 1.0,
    }


def _normalisation(network: AutoencoderKL | VQModel) -> tuple[Tensor, Tensor]:
    """Raw latents' mean and deviation, each [C], by whichever convention the folder follows."""
    config, channels = network.config, network.config.get("vq_embed_dim") or network.config["latent_channels"]
    if config.get("latents_mean") is not None and config.get("latents_std") is not None:
        return torch.tensor(config["latents_mean"]), torch.tensor(config["latents_std"])
    shift, scale = config.get("shift_factor") or 0.0, config.get("scaling_factor") or 1.0
    return torch.full((channels,), float(shift)), torch.full((channels,), 1.0 / scale)
