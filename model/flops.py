"""How much arithmetic does a training step need? Two operations a multiplication, and backward twice as many as forward.

Counted for the least that computes the same: no recomputation, attention only where it is visible, the head only where
text is predicted, a codec only at its latents. Linear layers cost their weights at every position, convolutions at every
pixel of their level.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from torch import nn

from model.batch import Batch
from model.latents.patches import LinearPatchCodec
from model.latents.unet_codec import UNetPatchCodec
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
    codecs = sum(codec_products(codec, part.grids) for codec, part in zip(model.codecs, batch.latents, strict=True))
    head = config.width * config.vocab_size * len(batch.predict_at)
    # A position of padding sees itself alone, which nobody needs.
    visible = (batch.last - batch.first + 1).sum().item() - (batch.ids.numel() - num_positions)
    # A visible pair costs a product of the query with the key, and one with the value.
    attention = 2 * config.num_layers * config.width * visible
    return 6.0 * (config.num_layers * expert * num_positions + codecs + head + attention)


def codec_products(codec: nn.Module, grids: Sequence[tuple[int, ...]]) -> int:
    """Multiplications of one pass in and out of the transformer. grids: of the latents, patches along each axis."""
    if isinstance(codec, UNetPatchCodec):
        return sum(number * _unet_products(codec, grid) for grid, number in Counter(grids).items())
    assert isinstance(codec, LinearPatchCodec)
    # The time is embedded once a latent.
    return sum(map(math.prod, grids)) * _num_weights([codec.read, codec.write]) + len(grids) * _num_weights([codec.time])


def _unet_products(codec: UNetPatchCodec, grid: tuple[int, ...]) -> int:
    """Of one latent."""
    axes = [patches * side for patches, side in zip(grid, codec.patch, strict=True)]
    # The time is embedded once on the way in and once on the way out, and read by every block.
    products = _num_weights([codec.time, codec.time, codec.down, codec.up], LINEAR)
    products += math.prod(grid) * _num_weights([codec.into_stream, codec.out_of_stream])
    for level, (enter, down, up) in enumerate(zip([codec.read, *codec.shrink], codec.down, codec.up, strict=True)):
        axes = [length // step for length, step in zip(axes, enter.stride, strict=True)]  # type: ignore[arg-type]
        leave = [*codec.grow[level : level + 1], *([] if level else [codec.write])]
        products += math.prod(axes) * _num_weights([enter, down, up, *leave], CONVOLUTION)
    return products


def _num_weights(modules: Iterable[nn.Module], dimensions: tuple[int, ...] = LINEAR + CONVOLUTION) -> int:
    """Of weights with so many dimensions."""
    weights = (parameter for module in modules for parameter in module.parameters())
    return sum(weight.numel() for weight in weights if weight.dim() in dimensions)
