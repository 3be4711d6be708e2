"""What can be asked of a model, and what comes back? Requests of interleaved text and images, and their completions.

Legend: n tokens, C latent channels, Y/X latent height/width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from model.config import ModelConfig


class Request(NamedTuple):
    """One thing to generate.

    prefix: what is given, in order: token ids, int64 [n], or clean latents, float [C, Y, X], which the loop wraps in BOI and
    EOI. A prefix that ends in BOI asks for an image at once.
    seed: of this request's noise and token draws; the result does not depend on the neighbours in the batch.
    max_new_tokens, max_images: text tokens and images at most. image_shape: Y, X of generated images.
    """

    prefix: tuple[Tensor, ...]
    seed: int
    max_new_tokens: int
    max_images: int
    image_shape: tuple[int, int]


class Completion(NamedTuple):
    """segments: what was generated, in order: token ids without markers, int64 [n], and latents, float32 [C, Y, X]."""

    segments: tuple[Tensor, ...]

    @property
    def text(self) -> Tensor:
        """All generated token ids, int64 [n]."""
        parts = [segment for segment in self.segments if segment.dim() == 1]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.long)

    @property
    def images(self) -> list[Tensor]:
        """All generated latents, each float32 [C, Y, X]."""
        return [segment for segment in self.segments if segment.dim() == 3]


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """num_steps: solver steps an image. guidance_scale: 1 is none. temperature: of text; 0 takes the likeliest token."""

    num_steps: int
    guidance_scale: float
    temperature: float = 0.0


def image_request(config: ModelConfig, caption_ids: Sequence[int], *, seed: int, image_shape: tuple[int, int]) -> Request:
    """Caption -> one image. caption_ids: the caption's tokens without markers."""
    prefix = torch.tensor([config.bos_id, *caption_ids, config.boi_id])
    return Request((prefix,), seed, max_new_tokens=0, max_images=1, image_shape=image_shape)


def caption_request(config: ModelConfig, latents: Tensor, *, seed: int, max_new_tokens: int) -> Request:
    """Image -> caption. latents: clean and normalised, float [C, Y, X]."""
    prefix = (torch.tensor([config.bos_id]), latents)
    return Request(prefix, seed, max_new_tokens, max_images=0, image_shape=(latents.shape[1], latents.shape[2]))


def text_request(config: ModelConfig, ids: Sequence[int], *, seed: int, max_new_tokens: int) -> Request:
    """Text -> text that goes on from it."""
    return Request((torch.tensor([config.bos_id, *ids]),), seed, max_new_tokens, max_images=0, image_shape=(0, 0))
