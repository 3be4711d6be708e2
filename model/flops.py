"""The arithmetic of a training step: two operations a multiplication, and backward twice as many as forward.

Counted for the least that computes the same: no recomputation, attention only where it is visible, the head only where
text is predicted, patch layers only at their latents. Linear layers cost their weights at every position, convolutions at every
pixel of their level.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from torch import nn

from model.batch import Batch
from model.latents.patches import LinearPatchLayers
from model.latents.unet_patches import UNetPatchLayers
from model.transfusion import Transfusion

# Matrices are linear layers' weights; what has more dimensions are convolutions'.
LINEAR = (2,)
CONVOLUTION = (3, 4, 5)


def step_flops(model: Transfusion, batch: Batch, num_positions: int) -> float:
    """Floating-point operations of one forward and backward pass of a batch with num_positions positions in use."""
    config = model.config
    # A position goes through one expert of each place, so what counts is the size of one.
    block = model.transformer.blocks[0]
    expert = _num_weights([block.get_submodule("attention.0"), block.get_submodule("feed_forward.0")])
    layers_and_latents = zip(model.patch_layers, batch.latents, strict=True)
    patches = sum(patch_products(layers, part.grids) for layers, part in layers_and_latents)
    head = config.hidden_size * config.vocab_size * len(batch.loss_positions)
    # A position of padding sees itself alone, which nobody needs.
    visible = (batch.kv_end - batch.kv_start + 1).sum().item() - (batch.input_ids.numel() - num_positions)
    # A visible pair costs a product of the query with the key, and one with the value.
    attention = 2 * config.num_hidden_layers * config.hidden_size * visible
    return 6.0 * (config.num_hidden_layers * expert * num_positions + patches + head + attention)


def patch_products(layers: nn.Module, grids: Sequence[tuple[int, ...]]) -> int:
    """Multiplications of one pass into and out of the transformer. grids: of the latents, patches along each axis."""
    if isinstance(layers, UNetPatchLayers):
        return sum(number * _unet_products(layers, grid) for grid, number in Counter(grids).items())
    assert isinstance(layers, LinearPatchLayers)
    # The time is embedded once a latent.
    return sum(map(math.prod, grids)) * _num_weights([layers.proj_in, layers.proj_out]) + len(grids) * _num_weights(
        [layers.time_embedding]
    )


def _unet_products(layers: UNetPatchLayers, grid: tuple[int, ...]) -> int:
    """Of one latent."""
    axes = [patches * side for patches, side in zip(grid, layers.patch_size, strict=True)]
    # The time is embedded once on the way in and once on the way out, and read by every block.
    products = _num_weights([layers.time_embedding, layers.time_embedding, layers.time_in, layers.down, layers.up], LINEAR)
    products += math.prod(grid) * _num_weights([layers.proj_in, layers.proj_out])
    for level, (enter, down, up) in enumerate(zip([layers.conv_in, *layers.downsample], layers.down, layers.up, strict=True)):
        axes = [length // step for length, step in zip(axes, enter.stride, strict=True)]  # type: ignore[arg-type]
        # What leads up from a level reads that level's pixels.
        leave = [layers.upsample[level - 1] if level else layers.conv_out]
        products += math.prod(axes) * _num_weights([enter, down, up, *leave], CONVOLUTION)
    return products


def _num_weights(modules: Iterable[nn.Module], dimensions: tuple[int, ...] = LINEAR + CONVOLUTION) -> int:
    """Of weights with so many dimensions."""
    weights = (parameter for module in modules for parameter in module.parameters())
    return sum(weight.numel() for weight in weights if weight.dim() in dimensions)
