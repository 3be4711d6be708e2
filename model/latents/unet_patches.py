"""The paper's other patch layers: down a U-Net into the transformer, and up again with its skips.

Transfusion (arXiv 2408.11039, Sec. 3.2), the "U-Net" layers. The down half is LMFusion's h = UNetDown(x_t, t) (arXiv
2412.15188, eq. 6) and the up half its UNetUp(transformer's output, t, h) (eq. 14), where h stands for what every down block
made. The blocks are the residual ones of Nichol and Dhariwal (arXiv 2102.09672) with the time added between the two
convolutions, and a plain LayerNorm where theirs has an adaptive one (paper, Sec. 3.2): over the channels of each latent
pixel, so that nothing is averaged over an image, let alone over two, and so that it cannot take the added time out again.
There is no attention in it: that is what the transformer in its middle does.

The paper leaves the sizes open. At 8 channels and 2 x 2 patches these come to its 0.17B and 0.27B:

    hidden size 768:                      unet_channels (544, 1088)
    hidden size 1024, 1536, 2048:         unet_channels (704, 1344)
    hidden size 4096:                     unet_channels (688, 1312)

Legend: M latents in the call, m of them of one grid, n patches a latent, P patches in all, W numbers in a patch, D hidden
size, C channels, c channels of a level, T numbers of the embedded time; axes are latent pixels, grid is patches along each
axis.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import Modality
from model.latents.patches import patchify, time_features, unpatchify, unrounded

Grids = Sequence[tuple[int, ...]]
# For each group of latents of one grid, what every down block made, [m, c, *axes of its level], in the order they ran.
UNetSkip = tuple[tuple[Tensor, ...], ...]

Convolution = type[nn.Conv1d | nn.Conv2d | nn.Conv3d]
# How much of a skip joins what comes from the transformer, to begin with.
SKIP_SHARE = 0.5
CONVOLUTIONS: dict[int, Convolution] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def halvings(modality: Modality) -> list[tuple[int, ...]]:
    """What each step from a level to the next divides the axes by: 2, or 1 along those that are one patch long already.

    A patch of 4 x 2 takes two steps, (2, 2) and (2, 1). Raises ValueError for a patch or unet_channels that do not fit.
    """
    name, patch, channels = modality.name, modality.patch_size, modality.unet_channels
    if len(patch) not in CONVOLUTIONS:
        raise ValueError(f"{name}.patch_size: {patch} has {len(patch)} axes; the unet takes 1, 2 or 3")
    if any(side < 1 or side & (side - 1) for side in patch):
        raise ValueError(f"{name}.patch_size: the unet halves, so each side of {patch} must be a power of two")
    steps = [tuple(2 if side >> step > 1 else 1 for side in patch) for step in range(max(patch).bit_length() - 1)]
    if len(channels) != len(steps) + 1:
        raise ValueError(
            f"{name}.unet_channels: {channels} names {len(channels)} levels; a patch of {patch} has {len(steps) + 1}, "
            "one and another for each halving"
        )
    return steps


def _init(layer: nn.Module, *, std: float) -> None:
    nn.init.normal_(layer.weight, std=std)  # type: ignore[arg-type]
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


def _blocks(number: int, conv: Convolution, inputs: int, outputs: int, time_width: int) -> nn.ModuleList:
    return nn.ModuleList(ResidualBlock(conv, inputs, outputs, time_width) for _ in range(number))


def _grouped(rows: Tensor, grids: Grids) -> dict[tuple[int, ...], Tensor]:
    """[P, ...] -> for each grid, in the order they first appear, [m, n, ...] of its latents."""
    # By views, not by an index: an index would travel to the device on every call.
    groups: dict[tuple[int, ...], list[Tensor]] = {}
    for grid, part in zip(grids, rows.split([math.prod(grid) for grid in grids]), strict=True):
        groups.setdefault(grid, []).append(part)
    return {grid: torch.stack(parts) for grid, parts in groups.items()}


def _times(time: Tensor, grids: Grids) -> dict[tuple[int, ...], Tensor]:
    """[M] -> for each grid [m] of its latents."""
    each = time.unbind()
    return {grid: torch.stack([one for one, other in zip(each, grids, strict=True) if other == grid]) for grid in set(grids)}


def _restored(groups: Sequence[Tensor], grids: Grids) -> Tensor:
    """The inverse: each [m, n, X] in the order of the grids' first appearance -> [P, X]."""
    parts = {grid: iter(group.unbind()) for grid, group in zip(dict.fromkeys(grids), groups, strict=True)}
    return torch.cat([next(parts[grid]) for grid in grids])


class UNetPatchLayers(nn.Module):
    """Latent pixels to one vector a patch, and back.

    modality: channels, patch_size and unet_channels are read. Level 0 is the latent's own grid, the last one the grid of
        patches: a patch of side 1, 2, 4 or 8 has 1, 2, 3 or 4 levels, and unet_channels one number for each, the finest first.
    hidden_size: D, of the transformer.
    """

    num_time_features = 128
    num_blocks = 2  # residual blocks a level, in each half

    def __init__(self, modality: Modality, hidden_size: int) -> None:
        super().__init__()
        steps, channels = halvings(modality), modality.unet_channels
        self.channels, self.patch_size = modality.channels, modality.patch_size
        conv, time_width = CONVOLUTIONS[len(self.patch_size)], 4 * channels[0]
        self.time_embedding = nn.Sequential(
            nn.Linear(self.num_time_features, time_width), nn.SiLU(), nn.Linear(time_width, time_width)
        )
        self.conv_in = conv(self.channels, channels[0], 3, padding=1)
        self.down = nn.ModuleList(_blocks(self.num_blocks, conv, each, each, time_width) for each in channels)
        self.downsample = nn.ModuleList(
            conv(fine, coarse, 3, stride=step, padding=1)  # type: ignore[arg-type]
            for (fine, coarse), step in zip(itertools.pairwise(channels), steps, strict=True)
        )
        self.in_norm = ChannelNorm(channels[-1])
        self.proj_in = nn.Linear(channels[-1], hidden_size)
        self.time_in = nn.Linear(time_width, hidden_size)
        self.proj_out = nn.Linear(hidden_size, channels[-1])
        self.up = nn.ModuleList(_blocks(self.num_blocks, conv, 2 * each, each, time_width) for each in channels)
        # Each coarse pixel says of its finer ones what each holds. Repeated pixels and a convolution would tell them apart by
        # their neighbours alone, too little for a transformer that has one vector a patch to draw with.
        self.upsample = nn.ModuleList(
            conv(coarse, fine * math.prod(step), 1)
            for (fine, coarse), step in zip(itertools.pairwise(channels), steps, strict=True)
        )
        self.steps = steps
        self.out_norm = ChannelNorm(channels[0])
        self.conv_out = conv(channels[0], self.channels, 3, padding=1)
        self.init_weights()

    def init_weights(self) -> None:
        """Residual blocks begin as their shortcuts and the prediction as zero (Nichol and Dhariwal), and nothing fades.

        On the way up a shortcut begins as what comes from the transformer and half of the skip. With torch's weights each layer
        there passes on a part of what the transformer says and takes the whole skip in: 0.003 of the skips' influence was left
        at the end (patch side 4), and captions were not learnt. A patch enters the transformer as large as from fresh linear
        layers.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.LayerNorm | nn.Conv1d | nn.Conv2d | nn.Conv3d):
                module.reset_parameters()
        for layer in (self.conv_in, *self.downsample, *self.upsample, self.proj_out):
            _init(layer, std=layer.weight[0].numel() ** -0.5)  # type: ignore[index,union-attr,operator]
        hidden_size, channels = self.proj_in.weight.shape
        patch_dim = self.channels * math.prod(self.patch_size)
        _init(self.proj_in, std=0.02 * (1024 / hidden_size * patch_dim / channels) ** 0.5)
        _init(self.time_in, std=0.02 * (1024 / hidden_size) ** 0.5)
        _init(self.conv_out, std=0.0)
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                _init(module.second, std=0.0)
                if not isinstance(module.shortcut, nn.Identity):
                    _init(module.shortcut, std=0.0)
                    own, skip = module.shortcut.weight.data.chunk(2, dim=1)
                    own.flatten(1).fill_diagonal_(1.0)
                    skip.flatten(1).fill_diagonal_(SKIP_SHARE)

    def patch_in(self, patches: Tensor, time: Tensor, latent_index: Tensor | None, grids: Grids) -> tuple[Tensor, UNetSkip]:
        """Noised patches to hidden states.

        patches: [P, W], latent after latent, raster order within. time: [M], noise levels. latent_index: unread, for the grids
        say it. grids: of each of the M latents, in any mixture. Returns [P, D] and what `patch_out` needs.
        """
        if not grids:
            # One latent of zeros, its result dropped: ranks that have none must still bring gradients, of zero, to the sum.
            hidden, skip = self.patch_in(patches.new_zeros(1, patches.shape[1]), time.new_zeros(1), None, [self._single])
            return hidden[:0], skip
        hidden, skips = [], []
        times = _times(time, grids)
        for grid, group in _grouped(patches, grids).items():
            latents = unpatchify(group, channels=self.channels, axes=self._axes(grid), patch_size=self.patch_size)
            embedded = self._embedded(times[grid])
            x, skip = self._down(latents.to(self.conv_in.weight.dtype), embedded)
            # The transformer is told the time as well, as by the linear layers: blocks that begin as shortcuts say nothing
            # of it for long, and what a caption is good for depends on it.
            hidden.append(self.proj_in(x.flatten(2).transpose(1, 2)) + self.time_in(F.silu(embedded)).unsqueeze(1))
            skips.append(skip)
        return _restored(hidden, grids), tuple(skips)

    def patch_out(self, hidden: Tensor, time: Tensor, grids: Grids, skip: UNetSkip) -> Tensor:
        """The transformer's output to what the network predicts.

        hidden: [P, D]; time, grids: as for `patch_in`; skip: what it returned. Returns [P, W] in float32 (float64 if it is).
        """
        if not grids:
            return self.patch_out(hidden.new_zeros(1, hidden.shape[1]), time.new_zeros(1), [self._single], skip)[:0]
        written = []
        times = _times(time, grids)
        for (grid, group), outputs in zip(_grouped(hidden, grids).items(), skip, strict=True):
            x = self.proj_out(group.to(self.proj_out.weight.dtype)).transpose(1, 2).unflatten(2, grid)
            x = self._up(x, times[grid], outputs)
            written.append(patchify(x.to(torch.promote_types(x.dtype, torch.float32)), self.patch_size))
        return _restored(written, grids)

    def _down(self, latents: Tensor, embedded: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """[m, C, *axes] and the embedded time, [m, T] -> [m, c, *grid], and the blocks' outputs."""
        x, outputs = self.conv_in(latents), []
        for level, blocks in enumerate(self.down):
            x = self.downsample[level - 1](x) if level else x
            for block in blocks:  # type: ignore[union-attr]
                x = block(x, embedded)
                outputs.append(x)
        return self.in_norm(x), tuple(outputs)

    def _up(self, x: Tensor, time: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        """[m, c, *grid], noise levels [m] and `_down`'s outputs -> [m, C, *axes]."""
        embedded, remaining = self._embedded(time), list(outputs)
        for level in reversed(range(len(self.up))):
            for block in self.up[level]:  # type: ignore[union-attr]
                x = block(torch.cat([x, remaining.pop()], dim=1), embedded)
            if level:
                fine = remaining[-1]
                pixels = self.upsample[level - 1](x).flatten(2).transpose(1, 2)
                x = unpatchify(pixels, channels=fine.shape[1], axes=fine.shape[2:], patch_size=self.steps[level - 1])
        x = F.silu(self.out_norm(x))
        # As in the linear layers, the last one is small, and what it rounds is the prediction's error.
        with unrounded(x):
            return self.conv_out(x.to(self.conv_out.weight.dtype))

    def _embedded(self, time: Tensor) -> Tensor:
        """[m] -> [m, T]."""
        return self.time_embedding(time_features(time, self.num_time_features).to(self.conv_in.weight.dtype))

    def _axes(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(patches * side for patches, side in zip(grid, self.patch_size, strict=True))

    @property
    def _single(self) -> tuple[int, ...]:
        """The grid of one patch."""
        return (1,) * len(self.patch_size)


class ResidualBlock(nn.Module):
    """Two convolutions with the time added between them, added to a shortcut."""

    def __init__(self, conv: Convolution, inputs: int, outputs: int, time_width: int) -> None:
        super().__init__()
        self.first_norm = ChannelNorm(inputs)
        self.first = conv(inputs, outputs, 3, padding=1)
        self.time = nn.Linear(time_width, outputs)
        self.second_norm = ChannelNorm(outputs)
        self.second = conv(outputs, outputs, 3, padding=1)
        self.shortcut = conv(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x: [m, inputs, *axes], time: [m, T] -> [m, outputs, *axes]."""
        shift = self.time(F.silu(time)).view(len(x), -1, *[1] * (x.dim() - 2))
        inner = self.first(F.silu(self.first_norm(x))) + shift
        return self.shortcut(x) + self.second(F.silu(self.second_norm(inner)))


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each latent pixel, [m, c, *axes]."""

    def forward(self, input: Tensor) -> Tensor:
        """[m, c, *axes] -> the same shape."""
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)
