"""Images that the model generates while it is trained: always of the same prompts and noise."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from components.data.loader import PackedRows
from components.training.transformer.config import SamplingConfig
from components.training.transformer.run import TransformerRun
from core.errors import BadInput
from core.tokenizer import TextTokenizer, load_tokenizer
from model.generation.eager import TorchEngine
from model.generation.requests import SamplingOptions, image_request
from model.generation.sampling import generate
from model.latents.autoencoder import Autoencoder, to_images
from model.transfusion import Transfusion

# MLflow's names for the sheets. Their section comes after "train", the one of the curves. A key of one step alone is shown at
# once; that of many has a slider, which begins at step 0.
KEPT_SHEET, SHEETS = "train_samples/after training", "train_samples/by step"
# As many pictures as a line of the sheet has.
NUM_HELD_OUT_CAPTIONS = 4


def prompts_of(config: SamplingConfig, validation: PackedRows, tokenizer: TextTokenizer) -> tuple[str, ...]:
    """The configured prompts; where there are none, the first captions of the validation split.

    Raises BadInput where that has none either.
    """
    if config.prompts:
        return config.prompts
    captions = [tokenizer.decode(caption) for caption in validation.captions(NUM_HELD_OUT_CAPTIONS)]
    if not captions:
        raise BadInput("train.sampling.prompts is empty, and no image of the validation split has a caption; write some")
    return tuple(captions)


class ImageSampler:
    """Generates an image of each prompt."""

    @staticmethod
    def of_run(run: TransformerRun, validation: PackedRows) -> ImageSampler:
        """With the run's prompts, or captions of its validation split."""
        config = run.config
        return ImageSampler(
            config.sampling, tokenizer=run.tokenizer, autoencoder=run.autoencoder, validation=validation, seed=config.seed
        )

    def __init__(
        self, config: SamplingConfig, *, tokenizer: Path, autoencoder: Path, validation: PackedRows, seed: int
    ) -> None:
        words = load_tokenizer(tokenizer)
        self.prompts = prompts_of(config, validation, words)
        self._options = SamplingOptions(num_steps=config.num_steps, guidance_scale=config.guidance_scale)
        self._captions = [words.encode(prompt) for prompt in self.prompts]
        self._autoencoder = Autoencoder.from_pretrained(autoencoder)
        _, height, width = validation.latent_shape
        self._image_shape = (height, width)
        self._seed = seed

    @torch.inference_mode()
    def generate(self, model: Transfusion) -> Tensor:
        """One image a prompt, uint8 [prompts, height, width, 3]."""
        return to_images(self._autoencoder.decode(self.latents(model)))

    @torch.inference_mode()
    def latents(self, model: Transfusion) -> Tensor:
        """What the images are decoded from, float32 [prompts, channels, height, width].

        Where weights lie in shards, all workers make them together.
        """
        requests = [
            image_request(model.config, caption, seed=self._seed + index, image_shape=self._image_shape)
            for index, caption in enumerate(self._captions)
        ]
        completions = generate(TorchEngine(model), requests, self._options, num_slots=len(requests))
        return torch.stack([completion.images[0] for completion in completions])
