"""What does a request give and need? Its prefix as blocks to feed, the cache columns it may fill, and what it may not ask.

Legend: n positions of a block, C channels of a latent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from model.config import ModelConfig
from model.generation.blocks import Block, Span
from model.generation.requests import Latent, Request
from model.latents.patches import cut


def prefix_blocks(config: ModelConfig, prefix: Sequence[Tensor | Latent]) -> list[Block]:
    """A prefix of token ids and latents, latents between their markers, as few blocks as the codecs allow.

    The linear codec takes any number of latents in a block; one for the U-Net begins a block of its own.
    """
    blocks: list[list[Tensor | Latent]] = [[]]
    for segment in prefix:
        if not isinstance(segment, Latent):
            blocks[-1].append(segment)
            continue
        modality = config.modalities[segment.modality]
        blocks[-1].append(torch.tensor([modality.begin_id]))
        if modality.codec == "unet":
            blocks.append([])
        blocks[-1] += [segment, torch.tensor([modality.end_id])]
    return [_block(config, parts) for parts in blocks if parts]


def latent_block(
    config: ModelConfig, modality: int, patches: Tensor, grid: tuple[int, ...], time: float, *, ended: bool
) -> Block:
    """One latent under way. patches: float32 [p, W]. ended: with its end token behind it."""
    ids = torch.full((len(patches) + ended,), config.modalities[modality].end_id)
    return Block(ids, int(ids[-1]) if ended else None, (Span(0, modality, patches, grid),), time)


def grid_of(config: ModelConfig, modality: int, axes: Sequence[int]) -> tuple[int, ...]:
    """Patches along each axis of a latent; axes in latent pixels."""
    return tuple(length // side for length, side in zip(axes, config.modalities[modality].patch, strict=True))


def columns_needed(config: ModelConfig, request: Request) -> int:
    """Cache columns that a request may fill."""
    given = sum(
        math.prod(grid_of(config, part.modality, part.values.shape[1:])) + 2 if isinstance(part, Latent) else len(part)
        for part in request.prefix
    )
    asked = asked_at_once(config, request)
    if not request.max_new_tokens:
        # No text follows, so the latent ends the sequence.
        return given + (0 if asked is None else math.prod(grid_of(config, asked, request.shapes[asked])))
    sizes = [math.prod(grid_of(config, modality, axes)) for modality, axes in enumerate(request.shapes) if axes]
    latents = request.max_latents * (max(sizes) + 2) if sizes else 0
    return given + request.max_new_tokens + latents - (asked is not None)


def asked_at_once(config: ModelConfig, request: Request) -> int | None:
    """The modality whose begin token ends the prefix, if any."""
    last = request.prefix[-1]
    if isinstance(last, Latent):
        return None
    begins = {modality.begin_id: number for number, modality in enumerate(config.modalities)}
    return begins.get(int(last[-1]))


def check_request(config: ModelConfig, request: Request) -> None:
    """Raise ValueError where the model cannot take the request, whatever its length."""
    if not request.prefix or any(not isinstance(part, Latent) and not len(part) for part in request.prefix):
        raise ValueError("prefix: it must hold segments, and none of them empty; begin with the begin-of-sequence token")
    if len(request.shapes) != len(config.modalities):
        raise ValueError(f"shapes: {request.shapes} must have an entry for each of {len(config.modalities)} modalities")
    given = [(part.modality, tuple(part.values.shape[1:])) for part in request.prefix if isinstance(part, Latent)]
    for number, axes in [*given, *((number, axes) for number, axes in enumerate(request.shapes) if axes)]:
        modality = config.modalities[number]
        divided = len(axes) == len(modality.patch) and not any(a % b for a, b in zip(axes, modality.patch, strict=True))
        if not divided or not math.prod(axes):
            raise ValueError(f"shapes: patches of {modality.patch} do not divide a latent of {axes} ({modality.name})")
    asked = asked_at_once(config, request)
    if asked is not None and (not request.shapes[asked] or request.max_latents < 1):
        name = config.modalities[asked].name
        raise ValueError(f"prefix: it ends in the begin token of {name}, for which max_latents and shapes leave no room")


def _block(config: ModelConfig, parts: Sequence[Tensor | Latent]) -> Block:
    ids: list[Tensor] = []
    spans: list[Span] = []
    size = 0
    for part in parts:
        if isinstance(part, Latent):
            patches = cut(part.values.unsqueeze(0).float(), config.modalities[part.modality].patch)[0]
            spans.append(Span(size, part.modality, patches, grid_of(config, part.modality, part.values.shape[1:])))
            part = torch.full((len(patches),), config.pad_id)
        ids.append(part)
        size += len(part)
    joined = torch.cat(ids)
    return Block(joined, None if isinstance(parts[-1], Latent) else int(joined[-1]), tuple(spans))
