"""What can be asked of a model, and what comes back? Requests of interleaved text and latents, and their completions.

Legend: n tokens, C latent channels, Y/X latent height/width; "axes" are the latent pixels along each axis of a latent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from model.config import ModelConfig
from model.diffusion.solvers import Solver


class Latent(NamedTuple):
    """One clean, normalised latent. modality: its number in the model's configuration. values: float [C, *axes]."""

    modality: int
    values: Tensor


class Request(NamedTuple):
    """One thing to generate.

    prefix: what is given, in order: token ids, int64 [n], or latents, which the loop wraps in their begin and end tokens. A
    prefix that ends in a begin token asks for a latent of that kind at once.
    seed: of this request's noise and token draws; the result does not depend on the neighbours in the batch.
    max_new_tokens, max_latents: text tokens and latents at most. shapes: axes of generated latents, one entry a modality;
    () where that kind is never to be generated.
    """

    prefix: tuple[Tensor | Latent, ...]
    seed: int
    max_new_tokens: int
    max_latents: int
    shapes: tuple[tuple[int, ...], ...]


class Completion(NamedTuple):
    """segments: what was generated, in order: token ids without markers, int64 [n], and latents, float32."""

    segments: tuple[Tensor | Latent, ...]

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
    """How to generate; the same for all requests of a call.

    num_steps: solver steps a latent (Heun evaluates the model twice in a step). solver: see model/diffusion/solvers.py.
    guidance_scale: of classifier-free guidance (arXiv 2207.12598); 1 is none.
    guidance_interval: noise levels at which guidance is applied, both ends included (arXiv 2404.07724).
    temperature: of text; 0 takes the likeliest token. top_p, min_p: see token_choice.py; 1 and 0 keep every token.
    """

    num_steps: int
    guidance_scale: float
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    temperature: float = 0.0
    top_p: float = 1.0
    min_p: float = 0.0
    solver: Solver = "auto"

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
    """Caption -> one image. caption_ids: the caption's tokens without markers; none for an image without any prompt."""
    prefix = torch.tensor([config.bos_id, *caption_ids, config.image.begin_id])
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
    asked = torch.tensor([*instruction_ids, config.image.begin_id])
    prefix = (torch.tensor([config.bos_id]), Latent(0, latents), asked)
    shapes = _only_images(config, image_shape or tuple(latents.shape[1:]))
    return Request(prefix, seed, max_new_tokens=0, max_latents=1, shapes=shapes)


def caption_request(config: ModelConfig, latents: Tensor, *, seed: int, max_new_tokens: int) -> Request:
    """Image -> caption. latents: clean and normalised, float [C, Y, X]."""
    prefix = (torch.tensor([config.bos_id]), Latent(0, latents))
    return Request(prefix, seed, max_new_tokens, max_latents=0, shapes=_only_images(config, ()))


def text_request(config: ModelConfig, ids: Sequence[int], *, seed: int, max_new_tokens: int) -> Request:
    """Text -> text that goes on from it."""
    prefix = torch.tensor([config.bos_id, *ids])
    return Request((prefix,), seed, max_new_tokens, max_latents=0, shapes=_only_images(config, ()))


def _only_images(config: ModelConfig, image_shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Axes by modality where nothing but images is generated."""
    return tuple(image_shape if modality == 0 else () for modality in range(len(config.modalities)))
