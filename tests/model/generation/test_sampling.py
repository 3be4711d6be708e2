"""Generation is what whole uncached forwards would say: in every phase, for every neighbourhood, under guidance."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from components.data.row_layout import RowForm, lay_out
from core.random import seed_of
from model.config import Modality, ModelConfig
from model.generation.eager import TorchEngine
from model.generation.requests import (
    Latent,
    Request,
    SamplingOptions,
    caption_request,
    edit_request,
    image_request,
    text_request,
)
from model.generation.sampling import generate
from model.latents.patches import patchify
from model.step import StepInputs, StepOutput
from model.transfusion import Transfusion
from tests.model.conftest import tiny_config, tiny_model
from tests.model.uncached import Placed, assert_equal, look, reference

BOI = 3
AUDIO = Modality(
    name="audio", channels=5, patch_size=(2,), patch_layers="linear", unet_channels=(), begin_token_id=5, end_token_id=6
)


def make_talkative(model: Transfusion, begin: int, request: Request) -> None:
    """Let the model answer the prefix with `begin`, and never end."""
    (ids,) = request.prefix
    assert not isinstance(ids, Latent)
    with torch.no_grad():
        model.head.weight[begin] = look(model, ids.tolist()).states
        model.head.weight[model.config.eos_token_id] = 0


def random_latent(rng: random.Random, modality: Modality, number: int, *grid: int) -> Latent:
    generator = torch.Generator().manual_seed(rng.randrange(2**32))
    axes = [patches * side for patches, side in zip(grid, modality.patch_size, strict=True)]
    return Latent(number, torch.randn(modality.channels, *axes, generator=generator))


def words(rng: random.Random, least: int = 1) -> list[int]:
    return [rng.randrange(7, 64) for _ in range(rng.randrange(least, least + 4))]


def unet(config: ModelConfig) -> dict[str, Any]:
    return {"modalities": (replace(config.image, patch_layers="unet", unet_channels=(8, 12)),)}


VARIANTS: dict[str, dict[str, Any]] = {
    "flow": {},
    "epsilon": {"prediction_type": "epsilon"},
    "clean": {"prediction_type": "x"},
    "velocity": {"prediction_type": "v", "zero_terminal_snr": True},
    "unet": unet(tiny_config()),
    "experts": {"experts": "full", "qk_norm": True},
    "two kinds": {"modalities": (tiny_config().image, AUDIO)},
    "two kinds, unet": {"modalities": (*unet(tiny_config())["modalities"], AUDIO), "experts": "feed_forward"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_cached_equals_uncached_in_every_phase(variant: str, rng: random.Random) -> None:
    """Several given latents, a latent at once, text after it, one more that the text begins, and text after that."""
    model = tiny_model(seed=rng.randrange(1000), **VARIANTS[variant])
    config, last = model.config, len(model.config.modalities) - 1
    given = [
        random_latent(rng, config.image, 0, 2, 1),
        random_latent(rng, config.modalities[last], last, *([3] if last else [1, 3])),
    ]
    prefix = (torch.tensor([1, *words(rng)]), given[0], torch.tensor(words(rng)), given[1], torch.tensor([*words(rng), BOI]))
    shapes = ((4, 6), (6,))[: last + 1]
    options = SamplingOptions(num_steps=3, guidance_scale=1.7)
    request = Request(prefix, rng.randrange(1000), max_new_tokens=7, max_latents=2, shapes=shapes)
    begun = Request((torch.tensor([1, *words(rng)]),), rng.randrange(1000), max_new_tokens=6, max_latents=2, shapes=shapes)
    make_talkative(model, config.modalities[last].begin_token_id, begun)
    got = generate(TorchEngine(model), [request, begun], options, num_slots=2)
    for asked, completion in zip((request, begun), got, strict=True):
        assert_equal(config, completion, reference(model, asked, options))
    (first, *_) = got[1].segments
    assert isinstance(first, Latent)
    assert first.modality == last
    assert [len(completion.text) > 0 for completion in got] == [True, True]


@pytest.mark.parametrize(
    ("prediction_type", "solver"),
    [
        ("epsilon", "ddpm"),
        ("epsilon", "ddim"),
        ("v", "dpmpp"),
        ("epsilon", "unipc"),
        ("flow", "euler"),
        ("flow", "heun"),
        ("x", "heun"),
    ],
)
def test_every_solver_is_its_denoiser_over_uncached_forwards(prediction_type: str, solver: str, rng: random.Random) -> None:
    """Latents of two sizes side by side, guided in an interval that only some evaluations lie in."""
    model = tiny_model(prediction_type, seed=rng.randrange(1000))
    options = SamplingOptions(num_steps=4, guidance_scale=2.5, guidance_interval=(0.3, 0.8), solver=solver)  # type: ignore[arg-type]
    shapes = [(4, 4), (2, 6), (4, 4)]
    requests = [image_request(model.config, words(rng), seed=rng.randrange(1000), image_shape=shape) for shape in shapes]
    for request, completion in zip(requests, generate(TorchEngine(model), requests, options, num_slots=3), strict=True):
        assert_equal(model.config, completion, reference(model, request, options))


def mixed_requests(config: ModelConfig, rng: random.Random) -> list[Request]:
    """Every kind of request in random order."""
    seed = lambda: rng.randrange(2**32)  # noqa: E731
    image = random_latent(rng, config.image, 0, 2, 2).values
    requests = [
        image_request(config, words(rng), seed=seed(), image_shape=(4, 4)),
        image_request(config, [], seed=seed(), image_shape=(2, 4)),
        image_request(config, words(rng, least=9), seed=seed(), image_shape=(4, 2)),
        caption_request(config, image, seed=seed(), max_new_tokens=6),
        edit_request(config, image, words(rng), seed=seed()),
        text_request(config, words(rng), seed=seed(), max_new_tokens=5),
        Request((torch.tensor([1, AUDIO.begin_token_id]),), seed(), max_new_tokens=3, max_latents=1, shapes=((), (8,))),
        Request((torch.tensor([1, *words(rng)]),), seed(), max_new_tokens=9, max_latents=2, shapes=((4, 2), (4,))),
    ]
    rng.shuffle(requests)
    return requests


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_request_does_not_depend_on_its_neighbours(temperature: float, rng: random.Random) -> None:
    """Alone, in any order, and with fewer slots than requests."""
    model = tiny_model(seed=rng.randrange(1000), modalities=(tiny_config().image, AUDIO))
    requests = mixed_requests(model.config, rng)
    make_talkative(model, BOI, next(request for request in requests if len(request.shapes[0]) and request.max_new_tokens))
    options = SamplingOptions(
        num_steps=3, guidance_scale=2.0, guidance_interval=(0.2, 0.9), temperature=temperature, top_p=0.9, min_p=0.02
    )
    engine = TorchEngine(model)
    alone = [generate(engine, [request], options, num_slots=1)[0] for request in requests]
    assert sum(len(completion.segments) for completion in alone) > len(requests)
    for num_slots in (2, 3, 8):
        order = rng.sample(range(len(requests)), len(requests))
        together = generate(engine, [requests[index] for index in order], options, num_slots=num_slots)
        for index, completion in zip(order, together, strict=True):
            assert len(completion.segments) == len(alone[index].segments)
            for got, want in zip(completion.segments, alone[index].segments, strict=True):
                values = [part.values if isinstance(part, Latent) else part for part in (got, want)]
                torch.testing.assert_close(*values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ends_in_text", [False, True])
def test_every_bit_of_a_seed_counts(ends_in_text: bool, rng: random.Random) -> None:
    model, seed = tiny_model(seed=rng.randrange(1000)), rng.randrange(2**64)
    image = image_request(model.config, [7], seed=seed, image_shape=(4, 4))
    text = text_request(model.config, [7], seed=seed, max_new_tokens=40)
    request = text if ends_in_text else image
    options = SamplingOptions(num_steps=1, guidance_scale=1, temperature=20.0)
    again = [request._replace(seed=each) for each in (seed, seed, seed ^ 1 << rng.randrange(32, 64))]
    one, same, other = generate(TorchEngine(model), again, options, num_slots=3)
    if ends_in_text:
        assert one.text.tolist() == same.text.tolist() != other.text.tolist()
    else:
        assert torch.equal(one.images[0], same.images[0]) and (one.images[0] != other.images[0]).all()


class Watched(TorchEngine):
    """Remembers the rows and positions of every pass."""

    def __init__(self, model: Transfusion, max_length: int | None = None) -> None:
        super().__init__(model, max_length)
        self.passes: list[tuple[int, int]] = []

    def step(self, inputs: StepInputs, cache: Any, rows: slice) -> StepOutput:
        assert rows.stop - rows.start == len(inputs.input_ids)
        assert int((inputs.cache_position + inputs.input_ids.shape[1]).max()) <= inputs.kv_length <= self.max_length
        self.passes.append((len(inputs.input_ids), inputs.input_ids.shape[1]))
        return super().step(inputs, cache, rows)


def test_rows_share_passes_whatever_their_phases(rng: random.Random) -> None:
    """A text of 12 tokens and an image of 9 evaluations: 12 passes, not 22."""
    model = tiny_model(seed=rng.randrange(1000))
    text = text_request(model.config, [7, 8], seed=1, max_new_tokens=12)
    image = image_request(model.config, [7], seed=2, image_shape=(4, 4))
    make_talkative(model, BOI, text)
    engine = Watched(model)
    generate(engine, [text, image], SamplingOptions(num_steps=9, guidance_scale=1), num_slots=2)
    assert len(engine.passes) == 12


def test_a_free_slot_goes_to_the_next_request_at_once(rng: random.Random) -> None:
    """Two slots, 3 + 6 tokens in one of them while the other one writes 9."""
    model = tiny_model(seed=rng.randrange(1000))
    requests = [text_request(model.config, [7, 8 + length], seed=1, max_new_tokens=length) for length in (3, 9, 6)]
    make_talkative(model, BOI, requests[0])
    engine, done = Watched(model), []
    options = SamplingOptions(num_steps=1, guidance_scale=1)
    completions = generate(engine, requests, options, num_slots=2, progress=lambda *counts: done.append(counts))
    assert [len(completion.text) for completion in completions] == [3, 9, 6]
    assert len(engine.passes) == 9
    assert done == [(1, 3), (3, 3)]


def test_guidance_costs_second_rows_only_inside_its_interval() -> None:
    """Euler at 1, 3/4, 1/2, 1/4: the interval holds two of them; at scale 1 there are no second rows at all."""
    model = tiny_model()
    request = image_request(model.config, [7, 8, 9], seed=3, image_shape=(4, 4))

    def passes(scale: float, interval: tuple[float, float]) -> list[tuple[int, int]]:
        engine = Watched(model)
        options = SamplingOptions(num_steps=4, guidance_scale=scale, guidance_interval=interval)
        generate(engine, [request], options, num_slots=1)
        return engine.passes

    assert passes(2.0, (0.4, 0.8)) == [(1, 5), (1, 4), (1, 1), (2, 4), (2, 4), (1, 4)]
    assert passes(2.0, (0.0, 1.0)) == [(1, 5), (1, 1), (2, 4), (2, 4), (2, 4), (2, 4)]
    assert passes(1.0, (0.0, 1.0)) == [(1, 5), (1, 4), (1, 4), (1, 4), (1, 4)]


def test_an_image_without_a_caption_is_what_training_teaches_where_it_drops_the_caption(rng: random.Random) -> None:
    """One step from pure noise, with the batch of a document whose image sees nothing before itself as the oracle."""
    model = tiny_model(seed=rng.randrange(1000))
    request = image_request(model.config, [], seed=rng.randrange(2**32), image_shape=(4, 6))
    engine = Watched(model)
    (completion,) = generate(engine, [request], SamplingOptions(num_steps=1, guidance_scale=3.0), num_slots=1)
    assert engine.passes == [(1, 1), (1, 6)]
    tokens = np.array([1, *words(rng), BOI, 4, 2])
    at = len(tokens) - 3
    layout = lay_out(
        RowForm(length=32, patches_per_image=6, boi=BOI, pad=0),
        tokens,
        np.array([0, len(tokens)]),
        np.array([rng.randrange(8)]),
        hidden_captions=np.array([True]),
        num_rows=1,
    )
    layout = layout._replace(position_ids=layout.position_ids - at)
    stream = np.random.Generator(np.random.Philox(key=seed_of(request.seed)))
    noise = torch.from_numpy(stream.standard_normal((6, model.config.patch_dim), dtype=np.float32))
    batch = layout.batch(noise, (2, 3))
    with torch.no_grad():
        (prediction,) = model(batch, [noise], [torch.ones(1)]).predictions
    got = patchify(completion.images[0].unsqueeze(0), (2, 2))[0]
    # The flow's only step: the noise less the velocity.
    torch.testing.assert_close(got, noise - prediction, rtol=1e-5, atol=1e-5 * float(prediction.abs().max()))
    # And it is not what the document's image says that sees what stands before it.
    with torch.no_grad():
        (other,) = model(batch._replace(kv_start=torch.zeros_like(batch.kv_start)), [noise], [torch.ones(1)]).predictions
    assert (other - prediction).abs().max() > 1e-2


def test_guidance_at_one_is_the_conditional_branch_and_otherwise_changes_the_image() -> None:
    model = tiny_model()
    request = image_request(model.config, [7, 8, 9], seed=3, image_shape=(4, 4))

    def image(scale: float, interval: tuple[float, float] = (0.0, 1.0)) -> Tensor:
        options = SamplingOptions(num_steps=4, guidance_scale=scale, guidance_interval=interval)
        return generate(TorchEngine(model), [request], options, num_slots=1)[0].images[0]

    wanted = reference(model, request, SamplingOptions(num_steps=4, guidance_scale=1.0))
    assert isinstance(wanted[0], Placed)
    torch.testing.assert_close(patchify(image(1.0).unsqueeze(0), (2, 2))[0], wanted[0].patches, rtol=1e-5, atol=1e-5)
    assert (image(3.0) - image(1.0)).abs().max() > 1e-2
    assert (image(3.0) - image(3.0, (0.4, 0.8))).abs().max() > 1e-2


def test_slots_may_be_as_short_as_each_request_alone_needs(rng: random.Random) -> None:
    """A row near its slot's end cannot ride with a longer block; it gets a pass of its own."""
    model = tiny_model(seed=rng.randrange(1000))
    image = image_request(model.config, [7, 8], seed=1, image_shape=(12, 6))
    text = text_request(model.config, [9], seed=2, max_new_tokens=20)
    make_talkative(model, BOI, text)
    options = SamplingOptions(num_steps=14, guidance_scale=2.0)
    engine = Watched(model, max_length=4 + 18)
    got = generate(engine, [image, text], options, num_slots=2)
    assert_equal(model.config, got[0], reference(model, image, options))
    assert_equal(model.config, got[1], reference(model, text, options))
    # All four slots while the text is short; then the image's two and the text's each for themselves.
    assert {(4, 18), (1, 18), (1, 1)} <= set(engine.passes)
    with pytest.raises(ValueError, match=r"request 1 may need 22 positions, and the engine has 21"):
        generate(Watched(model, max_length=21), [text._replace(max_new_tokens=19), image], options, num_slots=2)


def test_what_cannot_be_generated_is_refused() -> None:
    model = tiny_model()
    config, options = model.config, SamplingOptions(num_steps=2, guidance_scale=1.0)
    long = text_request(config, [7] * 150, seed=0, max_new_tokens=50)
    image = image_request(config, [7], seed=0, image_shape=(4, 4))
    for request, message in [
        (long, "request 0 may need 201 positions, and the engine has 160"),
        (image._replace(shapes=((3, 4),)), "do not divide"),
        (image._replace(shapes=()), "an entry for each of 1 modalities"),
        (image._replace(max_latents=0), "leave no room"),
        (image._replace(prefix=()), "must hold segments"),
    ]:
        with pytest.raises(ValueError, match=message):
            generate(TorchEngine(model), [request], options, num_slots=1)
    with pytest.raises(ValueError, match="solver"):
        generate(TorchEngine(model), [image], replace(options, solver="ddpm"), num_slots=1)
    with pytest.raises(ValueError, match="num_slots"):
        generate(TorchEngine(model), [image], options, num_slots=0)
    assert generate(TorchEngine(model), [], options, num_slots=1) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_steps": 0}, "num_steps"),
        ({"guidance_interval": (0.7, 0.2)}, "guidance_interval"),
        ({"temperature": -1.0}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"min_p": 1.5}, "min_p"),
    ],
)
def test_impossible_options_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamplingOptions(**{"num_steps": 2, "guidance_scale": 1.0, **change})
