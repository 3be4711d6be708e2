"""No figure is NaN or infinite, whatever the model does and however little there is to measure on: a sentence says why."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from components.evaluation.held_out import HeldOut, Stored, TextDocument
from components.evaluation.intervals import items_of
from components.evaluation.results import EvaluationTarget, Results
from components.evaluation.suite import measure
from components.evaluation.training_facts import TrainingFacts
from core.png import encode_png
from core.tokenizer import TextTokenizer
from model.config import ModelConfig
from model.latents.autoencoder import Autoencoder
from model.transfusion import Transfusion
from tests.components.evaluation.distribution.test_measure import document
from tests.components.evaluation.test_suite import CONFIG

NUM = 12
SMALL = dataclasses.replace(
    CONFIG,
    num_pictures=NUM,
    num_training_pictures=NUM,
    guidance_sweep=dataclasses.replace(CONFIG.guidance_sweep, num_prompts=NUM),
)


@pytest.fixture
def target(model: Transfusion, tokenizer: TextTokenizer) -> EvaluationTarget:
    torch.manual_seed(2)
    shape = {"layers_per_block": 1, "latent_channels": 4, "norm_groups": 2, "sample_side_px": 8}
    return EvaluationTarget(model, Autoencoder.create(block_channels=(2, 2), **shape).eval(), tokenizer)


def pictures(num: int) -> list[np.ndarray]:
    return list(np.random.default_rng(1).integers(0, 256, (num, 8, 8, 3), np.uint8))


def held_out(config: ModelConfig, tokenizer: TextTokenizer, num: int) -> HeldOut:
    prose = tokenizer.encode("a red one")
    ids = np.array([config.bos_token_id, *prose, config.eos_token_id])
    texts = [
        TextDocument(f"t/{number}", "a red one", (Stored(ids, np.zeros((0, 4, 4, 4), np.float32)),)) for number in range(num)
    ]
    return HeldOut(texts, [document(config, tokenizer, number, picture) for number, picture in enumerate(pictures(num))])


def trained_on(num: int) -> TrainingFacts:
    latents = np.random.default_rng(3).normal(size=(num, 4, 4, 4)).astype(np.float16)
    return TrainingFacts(["a blue two"], [], frozenset(), tuple(map(encode_png, pictures(num))), (latents,) if num else ())


def assert_all_finite(results: Results) -> None:
    json.dumps([results.metrics, results.facts, results.intervals], allow_nan=False)
    assert all(math.isfinite(value) for value in results.metrics.values())
    assert results.items.keys() | results.intervals.keys() <= results.metrics.keys()


@pytest.mark.parametrize(("num", "num_training"), [(NUM, NUM), (1, 1), (2, 0), (NUM, 1), (0, 1)])
def test_however_little_there_is(num: int, num_training: int, target: EvaluationTarget) -> None:
    config, tokenizer = target.model.config, target.tokenizer
    results = measure(target, held_out(config, tokenizer, num), trained_on(num_training), [], SMALL)
    assert_all_finite(results)
    assert results.notes


def test_of_a_model_that_diverged(target: EvaluationTarget) -> None:
    with torch.no_grad():
        for parameter in target.model.parameters():
            parameter.fill_(torch.nan)
    results = measure(target, held_out(target.model.config, target.tokenizer, NUM), trained_on(NUM), [], SMALL)
    assert_all_finite(results)
    assert "image/diffusion_loss" not in results.metrics and "text/bits_per_byte" not in results.metrics
    assert results.diffusion is None and results.x_0 is None
    (note,) = [note for note in results.notes if "diverged" in note]
    assert note.startswith("text/bits_per_byte and ")
    # What is measured by who comes first is a number, and shows the same.
    assert results.metrics["retrieval/caption_at_1"] == results.metrics["retrieval/image_at_1"] == 0


def test_a_figure_goes_with_all_that_belongs_to_it() -> None:
    results = Results()
    results.add_items("image/diffusion_loss", items_of(["a", "b"], [math.inf, 1.0], [1, 1]))
    results.add_items("image/x0_error_of_mean", items_of(["a", "b"], [2.0, 1.0], [1, 1]))
    results.find_intervals(3)
    results.leave_out_what_is_no_number()
    assert results.metrics.keys() == results.items.keys() == results.intervals.keys() == {"image/x0_error_of_mean"}
    assert results.notes == ["image/diffusion_loss came out infinite or as no number, as where a model diverged: left out"]
