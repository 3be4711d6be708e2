"""Which codec does a modality have, and which positions of a generation step go through it?

A training batch lists its patches; a step says position by position what stands there. The linear codec takes every position
and the others' results are dropped, which is cheap and has one shape whatever the values. The U-Net needs whole latents: a
row's step then is one latent's block from position 0 on, or holds none.

Legend: B rows, S positions a step, D width, W numbers in the modality's patch, P positions that hold its patches, M latents.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from model.config import Modality
from model.generation.engine import StepInputs
from model.latents.patches import LinearPatchCodec
from model.latents.unet_codec import UNetPatchCodec

Codec = LinearPatchCodec | UNetPatchCodec
# What a codec's way in keeps for its way out; the codec's own affair.
Skip = Any


class StepLatents(NamedTuple):
    """One modality's latents in a step.

    chosen: bool [B, S, 1], where its patches stand. time: [B, 1], or [M] with `at`. at: int64 [P], their flattened positions,
    or None where the codec takes every position. grids: of the M latents at `at`.
    """

    chosen: Tensor
    time: Tensor
    at: Tensor | None
    grids: tuple[tuple[int, ...], ...]
    skip: Skip


def new_codec(modality: Modality, width: int) -> Codec:
    """The codec that the modality asks for, between its patches and the transformer's width."""
    return LinearPatchCodec(modality.patch_width, width) if modality.codec == "linear" else UNetPatchCodec(modality, width)


def read_step(codec: Codec, modality: Modality, number: int, inputs: StepInputs, x: Tensor) -> tuple[Tensor, StepLatents]:
    """The stream [B, S, D] with the patches of modality `number` in their places, and what `write_step` needs."""
    chosen = (inputs.kind == number + 1).unsqueeze(-1)
    patches = inputs.patches[..., : modality.patch_width]
    if isinstance(codec, LinearPatchCodec):
        time = inputs.time.unsqueeze(1)
        embedded, skip = codec.encode(patches, time, None)
        return torch.where(chosen, embedded.to(x.dtype), x), StepLatents(chosen, time, None, (), skip)
    at, rows = _blocks(inputs, number)
    grids, time = tuple(inputs.grids[row] for row in rows.tolist()), inputs.time[rows]
    if not grids:
        return x, StepLatents(chosen, time, at, (), None)
    embedded, skip = codec.encode(patches.flatten(0, 1)[at], time, None, grids)
    x = x.flatten(0, 1).index_copy(0, at, embedded.to(x.dtype)).view(x.shape)
    return x, StepLatents(chosen, time, at, grids, skip)


def write_step(codec: Codec, modality: Modality, latents: StepLatents, hidden: Tensor, prediction: Tensor) -> Tensor:
    """prediction, float32 [B, S, >= W], with this modality's in their places. hidden: [B, S, D]."""
    if latents.at is None:
        part = codec.decode(hidden, latents.time, latents.grids, latents.skip)
        missing = prediction.shape[-1] - modality.patch_width
        part = torch.nn.functional.pad(part, (0, missing)) if missing else part
        return torch.where(latents.chosen, part, prediction)
    if not latents.grids:
        return prediction
    part = codec.decode(hidden.flatten(0, 1)[latents.at], latents.time, latents.grids, latents.skip)
    written = prediction.flatten(0, 1)
    written[latents.at, : modality.patch_width] = part
    return written.view(prediction.shape)


def _blocks(inputs: StepInputs, number: int) -> tuple[Tensor, Tensor]:
    """Flattened positions of whole latents, int64 [P], and the rows that hold one, int64 [M]."""
    flat = (inputs.kind == number + 1).flatten().nonzero().squeeze(1)
    return flat, (flat // inputs.kind.shape[1]).unique()
