"""Pictures generated from prompts, and pictures through the autoencoder and back.

Legend: N prompts or images; images are uint8 [N, side, side, 3].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from components.runtime.progress import report_progress
from core.random import seed_of
from core.tokenizer import TextTokenizer
from model.generation.requests import SamplingOptions, image_request
from model.generation.sampling import generate
from model.latents.autoencoder import Autoencoder, to_images, to_pixels
from model.step import Engine

Decoder = Callable[[Tensor], Tensor]
"""Normalised latents [N, C, Y, X] on the CPU -> pixels [N, 3, side, side], not clamped."""


def generate_images(
    engine: Engine,
    autoencoder: Autoencoder,
    tokenizer: TextTokenizer,
    prompts: Sequence[str],
    options: SamplingOptions,
    *,
    image_shape: tuple[int, int],
    seed: int,
    num_slots: int,
    decoder: Decoder | None = None,
) -> np.ndarray:
    """One picture a prompt. image_shape: Y, X in latent pixels; prompt i's noise depends on (seed, i) alone.

    decoder: in place of the autoencoder's own.
    """
    requests = [
        image_request(engine.config, tokenizer.encode(prompt), seed=seed_of(seed, index), image_shape=image_shape)
        for index, prompt in enumerate(prompts)
    ]
    completions = generate(engine, requests, options, num_slots=num_slots, progress=report_progress("pictures"))
    latents = torch.stack([completion.images[0] for completion in completions])
    return decode(autoencoder, latents) if decoder is None else _decoded(decoder, latents.cpu(), 64)


def in_batches(images: Iterable[np.ndarray], num: int) -> Iterator[np.ndarray]:
    """Arrays of so many of the images, taken one by one: uint8 [at most num, side, side, 3]."""
    one_by_one = iter(images)
    while batch := list(islice(one_by_one, num)):
        yield np.stack(batch)


@torch.inference_mode()
def decode(autoencoder: Autoencoder, latents: Tensor, batch_size: int = 64) -> np.ndarray:
    """Normalised latents [N, C, Y, X] -> images."""
    device = autoencoder.latent_mean.device
    return _decoded(lambda part: autoencoder.decode(part.to(device)), latents, batch_size)


@torch.inference_mode()
def encode(autoencoder: Autoencoder, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
    """Images -> normalised latents, float32 [N, C, Y, X]."""
    device = autoencoder.latent_mean.device
    parts = [autoencoder.encode(to_pixels(part.to(device))) for part in torch.from_numpy(images).split(batch_size)]
    return torch.cat(parts).cpu().numpy()


def reconstruct(autoencoder: Autoencoder, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
    """Images through the autoencoder and back."""
    return decode(autoencoder, torch.from_numpy(encode(autoencoder, images, batch_size)), batch_size)


def _decoded(decoder: Decoder, latents: Tensor, batch_size: int) -> np.ndarray:
    return np.concatenate([to_images(decoder(part)).cpu().numpy() for part in latents.split(batch_size)])
