"""What does a training step read? Packed rows of documents: text tokens, and the latents that stand between them.

Legend: B rows, L row length, P patches and M latents of one modality in the batch, W numbers in a patch, N predicted tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Latents(NamedTuple):
    """All latents of one modality in a batch, clean.

    patches: float32 [P, W], one latent after the other, raster order within. patch_at: int64 [P], index into the flattened
    [B * L]. patch_image: int64 [P], which of the M latents. image_sample: int64 [M], the latent's number in its split; it
    keys the noise, which is drawn on the CPU, and stays there.
    time_limit: float32 [M], largest noise level. grids: patches along each axis of each of the M.
    """

    patches: Tensor
    patch_at: Tensor
    patch_image: Tensor
    image_sample: Tensor
    time_limit: Tensor
    grids: tuple[tuple[int, ...], ...]

    def to(self, device: torch.device | str) -> Latents:
        stays = ("image_sample", "grids")
        moved = {name: part.to(device, non_blocking=True) for name, part in self._asdict().items() if name not in stays}
        return Latents(**moved, image_sample=self.image_sample, grids=self.grids)


class Batch(NamedTuple):
    """Packed rows of documents.

    ids: int64 [B, L]; pad_id where unused, anything where a patch stands.
    position: int64 [B, L], from 0 in each document. first, last: int32 [B, L], the interval each position sees, in the row.
    latents: one entry a modality of the model, in its order.
    predict_at: int64 [N], flattened indices of the text positions that predict. target: int64 [N], what they predict.
    after_image: bool [N], whether a latent stands before the position in its document.
    """

    ids: Tensor
    position: Tensor
    first: Tensor
    last: Tensor
    latents: tuple[Latents, ...]
    predict_at: Tensor
    target: Tensor
    after_image: Tensor

    def used(self, pad_id: int) -> Tensor:
        """bool [B, L]: where a token or a patch stands, and not padding."""
        used = self.ids != pad_id
        for part in self.latents:
            used.view(-1)[part.patch_at] = True
        return used

    def to(self, device: torch.device | str) -> Batch:
        moved = {name: part.to(device, non_blocking=True) for name, part in self._asdict().items() if name != "latents"}
        return Batch(**moved, latents=tuple(part.to(device) for part in self.latents))
