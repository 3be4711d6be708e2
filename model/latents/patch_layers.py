"""A modality's patch layers, and which positions of a generation step go through them.

A training batch lists its patches; a step says position by position what stands there. The linear layers take every position
and the others' results are dropped, which is cheap and has one shape whatever the values. The U-Net needs whole latents: a
row's step then is one latent from position 0 on, or holds none.

Legend: B rows, S positions a step, D hidden size, W numbers in the modality's patch, P positions that hold its patches, M
latents.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from model.config import Modality
from model.latents.patches import LinearPatchLayers
from model.latents.unet_patches import UNetPatchLayers
from model.step import StepInputs

PatchLayers = LinearPatchLayers | UNetPatchLayers
# What the layers' way in keeps for their way out; their own affair.
Skip = Any


class StepLatents(NamedTuple):
    """One modality's latents in a step."""

    is_patch: Tensor
    """bool [B, S, 1], where its patches stand."""
    time: Tensor
    """[B, 1], or [M] with `positions`."""
    positions: Tensor | None
    """int64 [P], flattened, or None where the layers take every position."""
    grids: tuple[tuple[int, ...], ...]
    """Of the M latents at `positions`."""
    skip: Skip


def new_patch_layers(modality: Modality, hidden_size: int) -> PatchLayers:
    """The layers that the modality asks for."""
    if modality.patch_layers == "linear":
        return LinearPatchLayers(modality.patch_dim, hidden_size)
    return UNetPatchLayers(modality, hidden_size)


def step_patches_in(
    layers: PatchLayers, modality: Modality, number: int, inputs: StepInputs, x: Tensor
) -> tuple[Tensor, StepLatents]:
    """x, [B, S, D], with the patches of modality `number` in their places, and what `step_patches_out` needs."""
    is_patch = (inputs.token_type_ids == number + 1).unsqueeze(-1)
    patches = inputs.patches[..., : modality.patch_dim]
    if isinstance(layers, LinearPatchLayers):
        time = inputs.time.unsqueeze(1)
        embedded, skip = layers.patch_in(patches, time, None)
        return torch.where(is_patch, embedded.to(x.dtype), x), StepLatents(is_patch, time, None, (), skip)
    positions, rows = _whole_latents(inputs, number)
    grids, time = tuple(inputs.grids[row] for row in rows.tolist()), inputs.time[rows]
    if not grids:
        return x, StepLatents(is_patch, time, positions, (), None)
    embedded, skip = layers.patch_in(patches.flatten(0, 1)[positions], time, None, grids)
    x = x.flatten(0, 1).index_copy(0, positions, embedded.to(x.dtype)).view(x.shape)
    return x, StepLatents(is_patch, time, positions, grids, skip)


def step_patches_out(
    layers: PatchLayers, modality: Modality, latents: StepLatents, hidden: Tensor, prediction: Tensor
) -> Tensor:
    """prediction, float32 [B, S, >= W], with this modality's in their places. hidden: [B, S, D]."""
    if latents.positions is None:
        part = layers.patch_out(hidden, latents.time, latents.grids, latents.skip)
        missing = prediction.shape[-1] - modality.patch_dim
        part = torch.nn.functional.pad(part, (0, missing)) if missing else part
        return torch.where(latents.is_patch, part, prediction)
    if not latents.grids:
        return prediction
    part = layers.patch_out(hidden.flatten(0, 1)[latents.positions], latents.time, latents.grids, latents.skip)
    flat = prediction.flatten(0, 1)
    flat[latents.positions, : modality.patch_dim] = part
    return flat.view(prediction.shape)


def _whole_latents(inputs: StepInputs, number: int) -> tuple[Tensor, Tensor]:
    """Flattened positions of whole latents, int64 [P], and the rows that hold one, int64 [M]."""
    flat = (inputs.token_type_ids == number + 1).flatten().nonzero().squeeze(1)
    return flat, (flat // inputs.token_type_ids.shape[1]).unique()
