"""Held-out diffusion losses, against a loop over single documents through the generation step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from components.evaluation.diffusion import caption_first, measure_diffusion, other_captions, squared_error
from components.evaluation.held_out import ImageDocument, Stored
from core.random import seed_of
from model.config import ModelConfig
from model.diffusion import noise
from model.generation.eager import TorchEngine
from model.latents.patches import patchify
from model.step import StepInputs
from model.transfusion import Transfusion

SEED = 11
NUM_PATCHES = 4


def document(config: ModelConfig, number: int, text: list[int], caption: str | None) -> ImageDocument:
    """One image after a text of the given ids."""
    latents = np.random.default_rng(number).normal(size=(1, 4, 4, 4)).astype(np.float32)
    ids = np.array([config.bos_token_id, *text, config.image.begin_token_id, config.image.end_token_id, config.eos_token_id])
    return ImageDocument(f"c/{number}", Stored(ids, latents), caption, (), None, ())


@pytest.fixture
def documents(config: ModelConfig) -> list[ImageDocument]:
    texts = [[20, 21], [30, 31, 32, 33], [40, 41], [20, 21]]
    return [document(config, number, text, str(text)) for number, text in enumerate(texts)]


def one_image_error(model: Transfusion, stored: Stored, image: int, time: float, seed: int = SEED) -> float:
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
    return float((prediction - (drawn - x_0)).square().sum())


def test_squared_error_is_that_of_single_denoising_steps(model: Transfusion, documents: list[ImageDocument]) -> None:
    stored = [entry.stored for entry in documents]
    wanted = sum(one_image_error(model, entry, image, 0.3) for image, entry in enumerate(stored))
    for max_positions in (1, 30, 4096):
        got = squared_error(model, stored, 0.3, seed=SEED, max_positions=max_positions)
        assert got.total == pytest.approx(wanted, rel=1e-4)
        assert got.num_values == sum(entry.latents.size for entry in stored)


def test_an_image_before_its_caption_is_measured_after_it(model: Transfusion, config: ModelConfig) -> None:
    after = document(config, 1, [20, 21], "x")
    stream = np.array(
        [config.bos_token_id, config.image.begin_token_id, config.image.end_token_id, 20, 21, config.eos_token_id]
    )
    before = after._replace(stored=Stored(stream, after.stored.latents))
    assert np.array_equal(caption_first(before.stored, stream, config).ids, after.stored.ids)
    losses = [measure_diffusion(model, [entry], (0.2, 0.6), seed=1) for entry in (before, after)]
    assert losses[0] == losses[1]
    assert losses[0].right is None  # one caption alone cannot be wrong


def test_wrong_captions_cost_nothing_when_text_is_not_read(model: Transfusion, documents: list[ImageDocument]) -> None:
    losses = measure_diffusion(model, documents, (0.5, 0.9), seed=2)
    assert losses.right is not None
    assert losses.wrong is not None
    assert losses.all == pytest.approx(losses.right)
    assert np.abs(np.subtract(losses.wrong, losses.right)).max() > 1e-4
    alike = [entry for entry in documents if len(entry.stored.ids) == 6]
    with torch.no_grad():
        model.embedding.weight.copy_(model.embedding.weight[:1].expand_as(model.embedding.weight))
    deaf = measure_diffusion(model, alike, (0.5, 0.9), seed=2)
    assert deaf.wrong == pytest.approx(deaf.right, rel=1e-5)


def test_documents_of_several_images_count_in_the_loss_alone(
    model: Transfusion, config: ModelConfig, documents: list[ImageDocument]
) -> None:
    boi, eoi = config.image.begin_token_id, config.image.end_token_id
    two = Stored(
        np.array([config.bos_token_id, 20, boi, eoi, 30, boi, eoi, config.eos_token_id]),
        np.random.default_rng(9).normal(size=(2, 4, 4, 4)).astype(np.float32),
    )
    losses = measure_diffusion(model, [*documents, ImageDocument("c/9", two, None, (), None, ())], (0.5,), seed=2)
    without = measure_diffusion(model, documents, (0.5,), seed=2)
    assert losses.right == without.right
    assert losses.all != pytest.approx(without.all)


def test_right_and_wrong_are_the_losses_under_the_own_and_another_caption(
    model: Transfusion, documents: list[ImageDocument]
) -> None:
    times = (0.25, 0.7)
    losses = measure_diffusion(model, documents, times, seed=SEED)
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
    assert other_captions([]) == []
