"""Distances move the right way: a half-trained model's pictures and noise lie farther off than a trained one's."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch

from components.evaluation.distribution.measure import measure_distribution
from components.evaluation.generated import HeldOutPictures, held_out_pictures
from components.evaluation.held_out import HeldOut, ImageDocument, Stored
from components.evaluation.images import decode
from components.evaluation.layout import rows_of
from components.evaluation.results import EvaluationTarget, Results
from components.evaluation.training_facts import TrainingFacts
from core.png import encode_png
from core.tokenizer import TextTokenizer
from model.config import ModelConfig
from model.latents.autoencoder import Autoencoder
from model.loss import loss_sums
from model.loss_options import PLAIN
from model.transfusion import Transfusion
from tests.components.evaluation.test_suite import CONFIG

SEED, NUM_KINDS, NUM, NUM_TRAINING = 53, 4, 40, 120
# Steps after which the model is looked at: a second or two.
HALF, NUM_STEPS = 15, 150
CAPTIONS = ("a red one top left", "a blue two top left", "a green six top right", "a cyan nine top right")


def latent(number: int) -> np.ndarray:
    """That of its kind, but for some noise: float32 [4, 4, 4]."""
    prototype = np.random.default_rng(number % NUM_KINDS).normal(size=(4, 4, 4))
    return (prototype + 0.3 * np.random.default_rng([SEED, number]).normal(size=prototype.shape)).astype(np.float32)


def document(config: ModelConfig, tokenizer: TextTokenizer, number: int, picture: np.ndarray) -> ImageDocument:
    caption = CAPTIONS[number % NUM_KINDS]
    boi, eoi = config.image.begin_token_id, config.image.end_token_id
    ids = np.array([config.bos_token_id, *tokenizer.encode(caption), boi, eoi, config.eos_token_id])
    return ImageDocument(f"c/{number}", Stored(ids, latent(number)[None]), caption, (encode_png(picture),), None, ())


@pytest.fixture(scope="module")
def stages(config: ModelConfig, tokenizer: TextTokenizer) -> list[EvaluationTarget]:
    """The same model half-trained and trained; pictures are what the autoencoder makes of latents."""
    torch.manual_seed(1)
    shape = {"layers_per_block": 1, "latent_channels": 4, "norm_groups": 4, "sample_side_px": 8}
    autoencoder, model = Autoencoder.create(block_channels=(8, 8), **shape).eval(), Transfusion(config)
    optimiser, blank, found = torch.optim.AdamW(model.parameters(), lr=5e-3), np.zeros((8, 8, 3), np.uint8), []
    for step in range(NUM_STEPS):
        batch = [document(config, tokenizer, 1000 + 8 * step + number, blank).stored for number in range(8)]
        loss = loss_sums(model, rows_of(batch, config), SEED, step, PLAIN)
        (loss.image / loss.num_values).backward()
        optimiser.step()
        optimiser.zero_grad()
        if step + 1 in (HALF, NUM_STEPS):
            found.append(EvaluationTarget(copy.deepcopy(model).eval(), autoencoder, tokenizer))
    return found


def test_pictures_of_a_half_trained_model_and_noise_are_farther_away(
    stages: list[EvaluationTarget], config: ModelConfig, tokenizer: TextTokenizer
) -> None:
    real = decode(stages[0].autoencoder, torch.from_numpy(np.stack([latent(number) for number in range(NUM + NUM_TRAINING)])))
    documents = [document(config, tokenizer, number, real[number]) for number in range(NUM)]
    training = TrainingFacts([], [], frozenset(), tuple(encode_png(each) for each in real[NUM:]))
    settings = dataclasses.replace(
        CONFIG, num_pictures=NUM, num_training_pictures=NUM_TRAINING, num_solver_steps=8, guidance_scale=1.0
    )

    def figures(target: EvaluationTarget, pictures: HeldOutPictures) -> dict[str, float]:
        results = Results()
        measure_distribution(results, target, pictures, training, SEED)
        return {key.removeprefix("distribution/"): value for key, value in results.metrics.items()}

    asked = [held_out_pictures(Results(), target, HeldOut([], documents), settings) for target in stages]
    half, whole = (figures(target, one) for target, one in zip(stages, asked, strict=True) if one is not None)
    noise = np.random.default_rng(SEED).integers(0, 256, real[:NUM].shape, np.uint8)
    noisy = figures(stages[1], HeldOutPictures(documents, noise))
    for name in ("frechet", "kid"):
        assert whole[f"{name}_floor"] < whole[name] < 0.4 * min(half[name], noisy[name])
    for name in ("precision", "coverage", "density"):
        assert whole[name] > max(half[name], noisy[name]) + 0.1
