"""Latents cut into patches, and the linear layers between a patch and the hidden states.

Transfusion (arXiv 2408.11039, Sec. 3.2), the "linear" layers. The time of the noise is embedded and added at the hidden size;
the paper adds it to the patch vector before the linear layer, where a patch of few numbers leaves it no room.

Legend: M latents, n patches a latent, P patches in all, W numbers in a patch, D hidden size, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.frequencies import frequencies


def patchify(latents: Tensor, patch_size: tuple[int, ...]) -> Tensor:
    """[M, C, *axes] -> [M, n, W]: patches in raster order; the numbers of one in the order channel, then the axes.

    patch_size: latent pixels along each axis of a patch. Raises ValueError where it does not divide the axes.
    """
    num_latents, channels, *axes = latents.shape
    if len(patch_size) != len(axes) or any(length % side for length, side in zip(axes, patch_size, strict=True)):
        raise ValueError(f"patch_size: {_times(patch_size)} does not divide the latent of {_times(axes)}")
    grid = [length // side for length, side in zip(axes, patch_size, strict=True)]
    pairs = [size for pair in zip(grid, patch_size, strict=True) for size in pair]
    # Axis k of the latent is now axes 2 + 2k (which patch) and 3 + 2k (where in it).
    which, where = range(2, 2 + len(pairs), 2), range(3, 2 + len(pairs), 2)
    split = latents.reshape(num_latents, channels, *pairs).permute(0, *which, 1, *where)
    return split.reshape(num_latents, math.prod(grid), channels * math.prod(patch_size))


def unpatchify(patches: Tensor, *, channels: int, axes: Sequence[int], patch_size: tuple[int, ...]) -> Tensor:
    """[M, n, W] -> [M, C, *axes]: the inverse of `patchify`; axes in latent pixels."""
    grid = [length // side for length, side in zip(axes, patch_size, strict=True)]
    num_axes = len(grid)
    split = patches.reshape(len(patches), *grid, channels, *patch_size)
    pairs = [axis for k in range(num_axes) for axis in (1 + k, 2 + num_axes + k)]
    return split.permute(0, 1 + num_axes, *pairs).reshape(len(patches), channels, *axes)


def time_features(time: Tensor, num_features: int) -> Tensor:
    """[...] noise levels in 0..1 -> [..., num_features] cosines and sines, in float32 whatever the model's precision."""
    frequency = frequencies(10_000.0, num_features // 2, time.device)
    # The paper's t runs to 1000; the features keep that scale.
    angle = time.float().unsqueeze(-1) * 1000.0 * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def unrounded(x: Tensor) -> AbstractContextManager[object]:
    """Inside, autocast rounds nothing. Without autocast no context at all, for exporters would write it into the graph."""
    device = x.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def _times(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))


class LinearPatchLayers(nn.Module):
    """A linear layer in, with the time added, and a linear layer out; a patch's result depends on that patch alone.

    It takes any leading dimensions [...] and reads neither grids nor skip, which the U-Net needs (unet_patches.py).
    """

    num_time_features = 128

    def __init__(self, patch_dim: int, hidden_size: int) -> None:
        super().__init__()
        self.proj_in = nn.Linear(patch_dim, hidden_size)
        self.time_embedding = nn.Sequential(
            nn.Linear(self.num_time_features, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size)
        )
        self.proj_out = nn.Linear(hidden_size, patch_dim)

    def patch_in(
        self, patches: Tensor, time: Tensor, latent_index: Tensor | None, grids: Sequence[tuple[int, ...]] = ()
    ) -> tuple[Tensor, None]:
        """Noised patches to hidden states, [..., D], and no skip.

        patches: [..., W]. time: noise levels [M] with latent_index, int64 [P], which of the M latents each patch is of; without
        it, noise levels that broadcast to [...].
        """
        embedded = self.time_embedding(time_features(time, self.num_time_features).to(self.proj_in.weight.dtype))
        if latent_index is not None:
            # Embedded once a latent. Spread as words are, because the gradient of that is summed in one order everywhere;
            # and not in half precision, for it is a sum over many.
            embedded = F.embedding(latent_index, embedded.to(torch.promote_types(embedded.dtype, torch.float32)))
        return self.proj_in(patches.to(self.proj_in.weight.dtype)) + embedded, None

    def patch_out(self, hidden: Tensor, time: Tensor, grids: Sequence[tuple[int, ...]] = (), skip: None = None) -> Tensor:
        """[..., D] -> [..., W], what the network predicts, in float32. time: unread, it is in the hidden states already."""
        # The last product is small, and what it rounds is the prediction's error.
        with unrounded(hidden):
            return self.proj_out(hidden.to(self.proj_out.weight.dtype)).float()
