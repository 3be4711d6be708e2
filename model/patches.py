"""How does an image enter and leave the transformer? Latents cut into patches, and the linear codec between patch and width.

Transfusion (arXiv 2408.11039, Sec. 3.2), the "linear" codec. The time of the noise is embedded and added at the transformer's
width; the paper adds it to the patch vector before the linear layer, where a patch of few numbers leaves it no room.

Legend: M images, n patches an image, P patches in all, W numbers in a patch, D width, C channels, Y/X latent height/width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def cut(latents: Tensor, side: int) -> Tensor:
    """[M, C, Y, X] -> [M, n, W]: patches in raster order; the numbers of one in the order channel, row, column."""
    num_images, channels, height, width = latents.shape
    if height % side or width % side:
        raise ValueError(f"patch_side: {side} does not divide the latent of {height} x {width}")
    grid = latents.reshape(num_images, channels, height // side, side, width // side, side)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(num_images, -1, channels * side * side)


def join(patches: Tensor, *, channels: int, height: int, width: int, side: int) -> Tensor:
    """[M, n, W] -> [M, C, Y, X]: the inverse of `cut`; height and width in latent pixels."""
    grid = patches.reshape(-1, height // side, width // side, channels, side, side)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, height, width)


def time_features(time: Tensor, num_features: int) -> Tensor:
    """[...] noise levels in 0..1 -> [..., num_features] cosines and sines, in float32 whatever the model's precision."""
    half = num_features // 2
    # A literal table, as in model/transformer.py: a computed one is folded differently by exporters.
    frequency = torch.tensor([10_000.0 ** (-i / half) for i in range(half)], dtype=torch.float32, device=time.device)
    # The paper's t runs to 1000; the features keep that scale.
    angle = time.float().unsqueeze(-1) * 1000.0 * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


class LinearPatchCodec(nn.Module):
    """A linear layer in, with the time added, and a linear layer out."""

    num_time_features = 128

    def __init__(self, patch_width: int, width: int) -> None:
        super().__init__()
        self.read = nn.Linear(patch_width, width)
        self.time = nn.Sequential(nn.Linear(self.num_time_features, width), nn.SiLU(), nn.Linear(width, width))
        self.write = nn.Linear(width, patch_width)

    def encode(self, patches: Tensor, time: Tensor) -> Tensor:
        """patches [..., W] and their noise levels (broadcastable to [...]) -> [..., D]."""
        features = time_features(time, self.num_time_features).to(self.read.weight.dtype)
        return self.read(patches.to(self.read.weight.dtype)) + self.time(features)

    def decode(self, hidden: Tensor) -> Tensor:
        """[..., D] -> [..., W], what the objective predicts, in float32."""
        return self.write(hidden).float()
