"""Held-out diffusion losses, against a loop over single documents through the generation step."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace
from typing import NamedTuple, cast, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from components.evaluation.diffusion import (
    error_of_mean,
    measure_diffusion,
    other_captions,
    squared_error,
    target_error,
    x_0_error,
)
from components.evaluation.held_out import ImageDocument, Stored
from components.evaluation.layout import caption_first
from core.random import seed_of
from model.batch import Batch
from model.config import DiffusionProcess, ModelConfig, PredictionType
from model.diffusion import noise
from model.diffusion.schedules import compute_snr, times_of_equal_snr
from model.generation.eager import TorchEngine
from model.latents.patches import patchify
from model.step import StepInputs
from model.transfusion import Transfusion

SEED = 11
ZERO_TERMINAL = DiffusionProcess("v", zero_terminal_snr=True)
NUM_PATCHES = 4


def document(config: ModelConfig, number: int, text: list[int], caption: str | None) -> ImageDocument:
    """One image after a text of the given ids."""
    latents = np.random.default_rng(number).normal(size=(1, 4, 4, 4)).astype(np.float32)
    ids = np.array([config.bos_token_id, *text, config.image.begin_token_id, config.image.end_token_id, config.eos_token_id])
    return ImageDocument(f"c/{number}", Stored(ids, latents), caption, (f"picture {number}".encode(),), None, ())


@pytest.fixture
def documents(config: ModelConfig) -> list[ImageDocument]:
    texts = [[20, 21], [30, 31, 32, 33], [40, 41], [20, 21]]
    return [document(config, number, text, str(text)) for number, text in enumerate(texts)]


class Denoised(NamedTuple):
    """One image, float64 [patches, numbers in a patch] each."""

    x_0: Tensor
    noise: Tensor
    x_t: Tensor
    prediction: Tensor


def denoised(model: Transfusion, stored: Stored, image: int, time: float, seed: int = SEED) -> Denoised:
    """Denoise once by the generation step: text and BOI as a prefix, then the noised patches."""
    config, engine = model.config, TorchEngine(model)
    x_0 = patchify(torch.from_numpy(stored.latents), config.image.patch_size)[0]
    drawn = noise.sample_noise(seed, 0, torch.tensor([image]), torch.tensor([NUM_PATCHES]), config.patch_dim).noise
    prefix = torch.from_numpy(stored.ids[: int(np.flatnonzero(stored.ids == config.image.begin_token_id)[0]) + 1])
    column = torch.arange(len(prefix) + NUM_PATCHES)
    is_image = column >= len(prefix)
    patches = torch.zeros(len(column), config.patch_dim)
    patches[is_image] = noise.add_noise(config.process, x_0, drawn, torch.tensor(time))
    inputs = StepInputs(
        input_ids=torch.cat([prefix, torch.full((NUM_PATCHES,), config.pad_token_id)])[None],
        patches=patches[None],
        token_type_ids=is_image[None].long(),
        time=torch.tensor([time]),
        position_ids=column[None],
        kv_end=torch.where(is_image, len(column) - 1, column)[None],
        cache_position=torch.tensor([0]),
        logits_index=torch.tensor([0]),
        kv_length=len(column),
        grids=((2, 2),),
    )
    prediction = engine.step(inputs, engine.new_cache(1), slice(0, 1)).prediction[0, is_image]
    return Denoised(x_0.double(), drawn.double(), patches[is_image].double(), prediction.double())


def one_image_error(model: Transfusion, stored: Stored, image: int, time: float, seed: int = SEED) -> float:
    """Of the velocity."""
    one = denoised(model, stored, image, time, seed)
    return float((one.prediction - (one.noise - one.x_0)).square().sum())


def alpha_sigma(process: DiffusionProcess, time: float) -> tuple[float, float]:
    """From the papers' formulas: the straight path, and the cosine schedule."""
    if process.is_flow:
        return 1 - time, time
    root = [math.cos((t + 0.008) / 1.008 * math.pi / 2) for t in (time, 0.0)]
    alpha_t = root[0] / root[1]
    return alpha_t, math.sqrt(1 - alpha_t**2)


def changed_type(config: ModelConfig, prediction_type: PredictionType) -> ModelConfig:
    return dataclasses.replace(config, prediction_type=prediction_type, noise_skip=prediction_type == "epsilon")


def of_type(config: ModelConfig, prediction_type: PredictionType) -> Transfusion:
    """A random model, large enough that every input matters to every output."""
    torch.manual_seed(7)
    model = Transfusion(changed_type(config, prediction_type)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
    return model


@pytest.mark.parametrize("prediction_type", get_args(PredictionType))
def test_the_clean_latents_error_is_that_of_single_denoising_steps(
    prediction_type: PredictionType, config: ModelConfig, documents: list[ImageDocument]
) -> None:
    model, time = of_type(config, prediction_type), 0.83
    alpha_t, sigma_t = alpha_sigma(model.config.process, time)
    wanted = 0.0
    for image, entry in enumerate(documents):
        one = denoised(model, entry.stored, image, time)
        predicted = noise.predicted_noise(model.config.process, one.x_t, one.prediction, torch.tensor(time).double())
        wanted += float(((one.x_t - sigma_t * predicted) / alpha_t - one.x_0).square().sum())
    stored = [entry.stored for entry in documents]
    for max_positions in (1, 4096):
        got = squared_error(model, stored, time, x_0_error, seed=SEED, max_positions=max_positions)
        assert got.total == pytest.approx(wanted, rel=1e-3)
        assert got.num_values == sum(entry.latents.size for entry in stored)


LEVELS = (0.05, 0.3, 0.62, 0.9, 0.98)


class Shrinking(nn.Module):
    """Answers with the best guess for normal latents, alpha_t * x_t / variance, in the form of its prediction type."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config, self.embedding = config, nn.Embedding(1, 1)

    def forward(self, batch: Batch, x_t: list[Tensor], times: list[Tensor]) -> SimpleNamespace:
        process, time = self.config.process, times[0][batch.latents[0].latent_index].unsqueeze(-1)
        alpha_t, sigma_t = alpha_sigma(process, float(time[0]))
        guess = alpha_t * x_t[0] / (alpha_t**2 + sigma_t**2)
        # The clean latent is a linear function of the prediction, whatever its form.
        at_0, at_1 = (noise.predicted_x_0(process, x_t[0], torch.full_like(guess, value), time) for value in (0, 1))
        return SimpleNamespace(predictions=[(guess - at_0) / (at_1 - at_0)])


def test_the_same_guess_has_the_same_error_whatever_the_prediction_type(config: ModelConfig) -> None:
    entries = [document(config, number, [20, 21], str(number)) for number in range(150)]
    errors = []
    for prediction_type in get_args(PredictionType):
        model = cast(Transfusion, Shrinking(changed_type(config, prediction_type)))
        times = times_of_equal_snr(model.config.process, LEVELS)
        errors.append(measure_diffusion(model, entries, times, seed=SEED, error=x_0_error).all)
    ratios = [alpha / sigma for alpha, sigma in (alpha_sigma(DiffusionProcess("epsilon"), level) for level in LEVELS)]
    # What is left of a variance of 1, as is known of normal numbers.
    assert errors[0] == pytest.approx([1 / (1 + ratio**2) for ratio in ratios], rel=0.06)
    for other in errors[1:]:
        assert other == pytest.approx(errors[0], rel=1e-3)


@pytest.mark.parametrize("process", [DiffusionProcess(kind) for kind in get_args(PredictionType)] + [ZERO_TERMINAL])
def test_times_of_all_paths_have_the_cosine_schedules_ratio(process: DiffusionProcess) -> None:
    times = times_of_equal_snr(process, LEVELS)
    wanted = [alpha**2 / sigma**2 for alpha, sigma in (alpha_sigma(DiffusionProcess("epsilon"), level) for level in LEVELS)]
    got = compute_snr(process, torch.tensor(times, dtype=torch.float64)).tolist()
    assert got == pytest.approx(wanted, rel=0.004 if process.zero_terminal_snr else 1e-9)


def test_the_means_error_is_the_latents_variance_at_each_position(documents: list[ImageDocument]) -> None:
    latents = [entry.stored.latents[0].reshape(-1).tolist() for entry in documents]
    means = [sum(column) / len(latents) for column in zip(*latents, strict=True)]
    squares = [(value - mean) ** 2 for latent in latents for value, mean in zip(latent, means, strict=True)]
    assert error_of_mean(documents) == pytest.approx(sum(squares) / len(squares), rel=1e-6)


def test_squared_error_is_that_of_single_denoising_steps(model: Transfusion, documents: list[ImageDocument]) -> None:
    stored = [entry.stored for entry in documents]
    wanted = sum(one_image_error(model, entry, image, 0.3) for image, entry in enumerate(stored))
    for max_positions in (1, 30, 4096):
        got = squared_error(model, stored, 0.3, target_error, seed=SEED, max_positions=max_positions)
        assert got.total == pytest.approx(wanted, rel=1e-4)
        assert got.num_values == sum(entry.latents.size for entry in stored)


def test_an_image_before_its_caption_is_measured_after_it(model: Transfusion, config: ModelConfig) -> None:
    after = document(config, 1, [20, 21], "x")
    stream = np.array(
        [config.bos_token_id, config.image.begin_token_id, config.image.end_token_id, 20, 21, config.eos_token_id]
    )
    before = after._replace(stored=Stored(stream, after.stored.latents))
    assert np.array_equal(caption_first(before.stored, stream, config).ids, after.stored.ids)
    losses = [measure_diffusion(model, [entry], (0.2, 0.6), seed=1, error=target_error) for entry in (before, after)]
    assert losses[0] == losses[1]
    assert losses[0].right is None  # one caption alone cannot be wrong


def test_wrong_captions_cost_nothing_when_text_is_not_read(model: Transfusion, documents: list[ImageDocument]) -> None:
    losses = measure_diffusion(model, documents, (0.5, 0.9), seed=2, error=target_error)
    assert losses.right is not None
    assert losses.wrong is not None
    assert losses.all == pytest.approx(losses.right)
    assert np.abs(np.subtract(losses.wrong, losses.right)).max() > 1e-4
    alike = [entry for entry in documents if len(entry.stored.ids) == 6]
    with torch.no_grad():
        model.embedding.weight.copy_(model.embedding.weight[:1].expand_as(model.embedding.weight))
    deaf = measure_diffusion(model, alike, (0.5, 0.9), seed=2, error=target_error)
    assert deaf.wrong == pytest.approx(deaf.right, rel=1e-5)


def test_documents_of_several_images_count_in_the_loss_alone(
    model: Transfusion, config: ModelConfig, documents: list[ImageDocument]
) -> None:
    boi, eoi = config.image.begin_token_id, config.image.end_token_id
    two = Stored(
        np.array([config.bos_token_id, 20, boi, eoi, 30, boi, eoi, config.eos_token_id]),
        np.random.default_rng(9).normal(size=(2, 4, 4, 4)).astype(np.float32),
    )
    losses = measure_diffusion(
        model, [*documents, ImageDocument("c/9", two, None, (), None, ())], (0.5,), seed=2, error=target_error
    )
    without = measure_diffusion(model, documents, (0.5,), seed=2, error=target_error)
    assert losses.right == without.right
    assert losses.all != pytest.approx(without.all)


def test_right_and_wrong_are_the_losses_under_the_own_and_another_caption(
    model: Transfusion, documents: list[ImageDocument]
) -> None:
    times = (0.25, 0.7)
    losses = measure_diffusion(model, documents, times, seed=SEED, error=target_error)
    num_values = sum(entry.stored.latents.size for entry in documents)
    for found, captions in ((losses.right, (0, 1, 2, 3)), (losses.wrong, (1, 2, 3, 1))):
        for number, time in enumerate(times):
            stored = [
                Stored(documents[c].stored.ids, entry.stored.latents) for c, entry in zip(captions, documents, strict=True)
            ]
            errors = [one_image_error(model, one, i, time, seed_of(SEED, number)) for i, one in enumerate(stored)]
            assert found is not None
            assert found[number] == pytest.approx(sum(errors) / num_values, rel=1e-4)


def test_wrong_captions_are_others(documents: list[ImageDocument]) -> None:
    chosen = other_captions(documents)
    assert chosen == [1, 2, 3, 1]
    assert other_captions([documents[0], documents[3]]) == []
    # Another caption of the same image is no wrong one.
    twin = documents[1]._replace(pictures=documents[0].pictures)
    assert other_captions([documents[0], twin, documents[2]]) == [2, 2, 0]
    assert other_captions([documents[0], twin]) == []
    assert other_captions([]) == []
