"""What a training step reads: packed rows of documents, text tokens and the latents that stand between them.

Legend: B rows, L row length, P patches and M latents of one modality in the batch, W numbers in a patch, N predicted tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Latents(NamedTuple):
    """All latents of one modality in a batch, clean."""

    patches: Tensor
    """float32 [P, W], one latent after the other, raster order within."""
    patch_positions: Tensor
    """int64 [P], indices into the flattened [B * L]."""
    latent_index: Tensor
    """int64 [P], which of the M latents each patch is of."""
    sample_index: Tensor
    """int64 [M], each latent's number in its split; it keys the noise, which is drawn on the CPU, and stays there."""
    time_limit: Tensor
    """float32 [M], largest noise level."""
    grids: tuple[tuple[int, ...], ...]
    """Patches along each axis of each of the M."""

    def to(self, device: torch.device | str) -> Latents:
        """The same on `device`, but for what keys the noise."""
        stays = ("sample_index", "grids")
        moved = {name: part.to(device, non_blocking=True) for name, part in self._asdict().items() if name not in stays}
        return Latents(**moved, sample_index=self.sample_index, grids=self.grids)


class Batch(NamedTuple):
    """Packed rows of documents."""

    input_ids: Tensor
    """int64 [B, L]; pad_token_id where unused, anything where a patch stands."""
    position_ids: Tensor
    """int64 [B, L], from 0 in each document."""
    kv_start: Tensor
    """int32 [B, L], the first position of the row that each position sees."""
    kv_end: Tensor
    """int32 [B, L], the last one, included."""
    latents: tuple[Latents, ...]
    """An entry for each modality of the model, in its order."""
    loss_positions: Tensor
    """int64 [N], flattened indices of the text positions that predict."""
    labels: Tensor
    """int64 [N], what they predict."""
    after_image: Tensor
    """bool [N], whether the label is of a text behind a latent of its document, the text's end included. That the document ends
    right behind a latent, or another latent comes, is no text."""

    def used(self, pad_token_id: int) -> Tensor:
        """bool [B, L]: where a token or a patch stands, and not padding."""
        used = self.input_ids != pad_token_id
        for part in self.latents:
            used.view(-1)[part.patch_positions] = True
        return used

    def to(self, device: torch.device | str) -> Batch:
        """The same on `device`, copied while the host goes on where its memory is pinned."""
        moved = {name: part.to(device, non_blocking=True) for name, part in self._asdict().items() if name != "latents"}
        return Batch(**moved, latents=tuple(part.to(device) for part in self.latents))
