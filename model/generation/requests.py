"""What can be asked of a model, and what comes back: requests of interleaved text and latents, and their completions.

Legend: n tokens, C latent channels, Y/X latent height/width; "axes" are the latent pixels along each axis of a latent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from model.config import ModelConfig
from model.diffusion.solvers import Solver


class Latent(NamedTuple):
    """One clean, normalised latent."""

    modality: int
    """Its number in the model's configuration."""
    values: Tensor
    """float [C, *axes]."""


class Request(NamedTuple):
    """One thing to generate."""

    prefix: tuple[Tensor | Latent, ...]
    """What is given, in order: token ids, int64 [n], or latents, which the loop wraps in their begin and end tokens. A prefix
    that ends in a begin token asks for a latent of that kind at once."""
    seed: int
    """Of this request's noise and tokens; the result does not depend on the neighbours in the batch."""
    max_new_tokens: int
    max_latents: int
    shapes: tuple[tuple[int, ...], ...]
    """Axes of generated latents, one entry a modality; () where that kind is never to be generated."""

    def check(self, config: ModelConfig) -> None:
        """Raise ValueError where the model cannot take the request, whatever its length."""
        if not self.prefix or any(not isinstance(part, Latent) and not len(part) for part in self.prefix):
            raise ValueError("prefix: it must hold segments, and none of them empty; begin with the begin-of-sequence token")
        if len(self.shapes) != len(config.modalities):
            raise ValueError(f"shapes: {self.shapes} must have an entry for each of {len(config.modalities)} modalities")
        given = [(part.modality, tuple(part.values.shape[1:])) for part in self.prefix if isinstance(part, Latent)]
        wanted = [(modality, axes) for modality, axes in enumerate(self.shapes) if axes]
        for modality, axes in given + wanted:
            size, name = config.modalities[modality].patch_size, config.modalities[modality].name
            divided = len(axes) == len(size) and not any(a % b for a, b in zip(axes, size, strict=True))
            if not divided or not math.prod(axes):
                raise ValueError(f"shapes: patches of {size} do not divide a latent of {axes} ({name})")
        asked = self.asked_at_once(config)
        if asked is not None and (not self.shapes[asked] or self.max_latents < 1):
            name = config.modalities[asked].name
            raise ValueError(f"prefix: it ends in the begin token of {name}, for which max_latents and shapes leave no room")

    def columns_needed(self, config: ModelConfig) -> int:
        """Cache columns that the request may fill."""
        num_patches = [
            math.prod(modality.grid(axes)) if axes else 0 for modality, axes in zip(config.modalities, self.shapes, strict=True)
        ]
        given = sum(
            math.prod(config.modalities[part.modality].grid(part.values.shape[1:])) + 2
            if isinstance(part, Latent)
            else len(part)
            for part in self.prefix
        )
        asked = self.asked_at_once(config)
        if not self.max_new_tokens:
            # No text follows, so the latent ends the sequence.
            return given + (0 if asked is None else num_patches[asked])
        # At most: each latent is of the largest kind, and stands between two markers.
        largest = max(num_patches, default=0)
        latents = self.max_latents * (largest + 2) if largest else 0
        # The begin token of one that is asked for at once is in the prefix already.
        return given + self.max_new_tokens + latents - (asked is not None)

    def asked_at_once(self, config: ModelConfig) -> int | None:
        """The modality whose begin token ends the prefix, if any."""
        last = self.prefix[-1]
        if isinstance(last, Latent):
            return None
        begins = {modality.begin_token_id: number for number, modality in enumerate(config.modalities)}
        return begins.get(int(last[-1]))


class Completion(NamedTuple):
    """What a request brought."""

    segments: tuple[Tensor | Latent, ...]
    """In order: token ids without markers, int64 [n], and latents, float32."""

    @property
    def text(self) -> Tensor:
        """All generated token ids, int64 [n]."""
        parts = [segment for segment in self.segments if not isinstance(segment, Latent)]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.long)

    @property
    def images(self) -> list[Tensor]:
        """All generated latents of the first modality, each float32 [C, *axes]."""
        return [segment.values for segment in self.segments if isinstance(segment, Latent) and segment.modality == 0]


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How to generate; the same for all requests of a call."""

    num_steps: int
    """Solver steps a latent (Heun evaluates the model twice in a step)."""
    guidance_scale: float
    """Of classifier-free guidance (arXiv 2207.12598); 1 is none."""
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """Noise levels at which guidance is applied, both ends included (arXiv 2404.07724)."""
    temperature: float = 0.0
    """Of text; 0 takes the likeliest token."""
    top_p: float = 1.0
    """See token_choice.py; 1 keeps every token."""
    min_p: float = 0.0
    """See token_choice.py; 0 keeps every token."""
    solver: Solver = "auto"
    """See model/diffusion/solvers.py."""

    def __post_init__(self) -> None:
        low, high = self.guidance_interval
        for right, message in (
            (self.num_steps >= 1, f"num_steps: {self.num_steps} must be at least 1"),
            (0 <= low <= high <= 1, f"guidance_interval: {self.guidance_interval} must be two rising noise levels in 0..1"),
            (self.temperature >= 0, f"temperature: {self.temperature} must not be negative"),
            (0 < self.top_p <= 1, f"top_p: {self.top_p} must be above 0 and at most 1"),
            (0 <= self.min_p <= 1, f"min_p: {self.min_p} must be in 0..1"),
        ):
            if not right:
                raise ValueError(message)


def image_request(config: ModelConfig, caption_ids: Sequence[int], *, seed: int, image_shape: tuple[int, ...]) -> Request:
    """Caption -> one image. caption_ids: the caption's tokens without markers; none for an image without any prompt.

    Without one the image sees its begin token alone, as where training drops a caption: the unconditional branch of guidance.
    """
    # Behind a begin of sequence at once stand images that come first, which training noises to image_first_time_limit at most.
    caption = [config.bos_token_id, *caption_ids] if caption_ids else []
    prefix = torch.tensor([*caption, config.image.begin_token_id])
    return Request((prefix,), seed, max_new_tokens=0, max_latents=1, shapes=_only_images(config, image_shape))


def edit_request(
    config: ModelConfig,
    latents: Tensor,
    instruction_ids: Sequence[int],
    *,
    seed: int,
    image_shape: tuple[int, ...] | None = None,
) -> Request:
    """(Image, instruction) -> image. latents: clean and normalised, float [C, Y, X]; image_shape: as given without it."""
    asked = torch.tensor([*instruction_ids, config.image.begin_token_id])
    prefix = (torch.tensor([config.bos_token_id]), Latent(0, latents), asked)
    shapes = _only_images(config, image_shape or tuple(latents.shape[1:]))
    return Request(prefix, seed, max_new_tokens=0, max_latents=1, shapes=shapes)


def caption_request(config: ModelConfig, latents: Tensor, *, seed: int, max_new_tokens: int) -> Request:
    """Image -> caption. latents: clean and normalised, float [C, Y, X]."""
    prefix = (torch.tensor([config.bos_token_id]), Latent(0, latents))
    return Request(prefix, seed, max_new_tokens, max_latents=0, shapes=_only_images(config, ()))


def text_request(config: ModelConfig, ids: Sequence[int], *, seed: int, max_new_tokens: int) -> Request:
    """Text -> text that goes on from it."""
    prefix = torch.tensor([config.bos_token_id, *ids])
    return Request((prefix,), seed, max_new_tokens, max_latents=0, shapes=_only_images(config, ()))


def _only_images(config: ModelConfig, image_shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Axes by modality where nothing but images is generated."""
    return tuple(image_shape if modality == 0 else () for modality in range(len(config.modalities)))
