"""The named sizes of the autoencoder, without torch: configurations are checked before anything heavy is imported."""

from __future__ import annotations

from typing import Literal, NamedTuple

Preset = Literal["tiny", "demo", "86m"]


class AutoencoderSize(NamedTuple):
    """One named size."""

    block_channels: tuple[int, ...]
    """Of each resolution level; each further level halves the side."""
    layers_per_block: int
    """Residual layers a level."""
    latent_channels: int
    """Of one latent pixel."""
    norm_groups: int
    """Of every group norm."""

    @property
    def num_halvings(self) -> int:
        """How often the image's side is halved on the way to the latent's."""
        return len(self.block_channels) - 1


# "86m" is the paper's by its description (App. A: 86M parameters, 256 x 256 x 3 to 32 x 32 x 8): sd-vae's levels, 83.7M here.
PRESETS: dict[Preset, AutoencoderSize] = {
    "tiny": AutoencoderSize((8, 16), 1, 4, 4),
    "demo": AutoencoderSize((16, 32, 64), 1, 8, 8),
    "86m": AutoencoderSize((128, 256, 512, 512), 2, 8, 32),
}
