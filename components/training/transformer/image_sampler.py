"""Images that the model generates while it is trained: always of the same prompts and noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from components.training.transformer.config import SamplingConfig
from core.tokenizer import load_tokenizer
from model.generation.eager import TorchEngine
from model.generation.requests import SamplingOptions, image_request
from model.generation.sampling import generate
from model.latents.autoencoder import Autoencoder, to_images
from model.transfusion import Transfusion


class ImageSampler:
    """Generates an image of each configured prompt."""

    def __init__(
        self, config: SamplingConfig, *, tokenizer: Path, autoencoder: Path, latent_shape: Sequence[int], seed: int
    ) -> None:
        self.prompts = config.prompts
        self._options = SamplingOptions(num_steps=config.num_steps, guidance_scale=config.guidance_scale)
        encode = load_tokenizer(tokenizer).encode
        self._captions = [encode(prompt) for prompt in config.prompts]
        self._autoencoder = Autoencoder.from_pretrained(autoencoder)
        self._image_shape = (latent_shape[1], latent_shape[2])
        self._seed = seed

    @torch.inference_mode()
    def generate(self, model: Transfusion) -> Tensor:
        """One image a prompt, uint8 [prompts, height, width, 3]."""
        requests = [
            image_request(model.config, caption, seed=self._seed + index, image_shape=self._image_shape)
            for index, caption in enumerate(self._captions)
        ]
        completions = generate(TorchEngine(model), requests, self._options, num_slots=len(requests))
        latents = torch.stack([completion.images[0] for completion in completions])
        return to_images(self._autoencoder.decode(latents))


def image_key(index: int, prompt: str) -> str:
    """MLflow's name for the images of one prompt: "samples/00-a-red-three-top-left"."""
    words = "".join(letter if letter.isalnum() else " " for letter in prompt.lower()).split()
    return f"samples/{index:02d}-{'-'.join(words)[:60]}"
