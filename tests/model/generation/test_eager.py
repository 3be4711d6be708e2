"""Torch's ways of running a step agree, and a cache keeps what it holds while it grows."""

from __future__ import annotations

import random

import pytest
import torch
from torch._dynamo.utils import counters

from model.compiled import compile_for_generation
from model.generation.eager import Mode, TorchEngine
from model.generation.requests import Latent, Request, SamplingOptions, image_request, text_request
from model.generation.sampling import generate
from model.packed_linear import copy_with_its_weights
from tests.model.conftest import tiny_config, tiny_model
from tests.model.uncached import assert_equal, reference


def test_a_cache_grows_without_losing_what_it_holds(rng: random.Random) -> None:
    """140 tokens beside an image: the cache is enlarged on the way."""
    model = tiny_model(seed=rng.randrange(1000))
    with torch.no_grad():
        model.head.weight[model.config.eos_token_id] = 0
    text = text_request(model.config, [rng.randrange(7, 64)], seed=1, max_new_tokens=140)
    image = image_request(model.config, [rng.randrange(7, 64)], seed=2, image_shape=(4, 4))
    options = SamplingOptions(num_steps=60, guidance_scale=2.0)
    engine = TorchEngine(model)
    for request, completion in zip((text, image), generate(engine, [text, image], options, num_slots=2), strict=True):
        assert_equal(model.config, completion, reference(model, request, options))


def test_modes_that_cannot_run_are_refused() -> None:
    with pytest.raises(ValueError, match="'graphs' needs the model on a CUDA GPU"):
        TorchEngine(tiny_model(), mode="graphs")
    with pytest.raises(ValueError, match="not one of eager, compiled, graphs"):
        TorchEngine(tiny_model(), mode="fast")  # type: ignore[arg-type]


@pytest.mark.parametrize("experts", ["shared", "full"])
def test_compiled_on_a_cpu_generates_what_eager_torch_does(experts: str, rng: random.Random) -> None:
    """Whatever the numbers of rows and positions, each piece is compiled twice at most: for a single position, and for any."""
    torch._dynamo.reset()
    counters.clear()
    model = tiny_model(seed=rng.randrange(1000), experts=experts)
    requests = [
        *(image_request(model.config, [7 + index] * 5, seed=index, image_shape=(4, 4)) for index in range(2)),
        text_request(model.config, [9, 10], seed=3, max_new_tokens=rng.randrange(3, 9)),
    ]
    options = SamplingOptions(num_steps=3, guidance_scale=2.0)
    engine = TorchEngine(model, mode="compiled")
    for number in (3, 2):
        wanted = generate(TorchEngine(model), requests, options, num_slots=number)
        for got, want in zip(generate(engine, requests, options, num_slots=number), wanted, strict=True):
            for one, other in zip(got.segments, want.segments, strict=True):
                values = [part.values if isinstance(part, Latent) else part for part in (one, other)]
                torch.testing.assert_close(*values, rtol=1e-4, atol=1e-4)
    assert counters["stats"]["unique_graphs"] <= (4 if experts == "shared" else 0)
    assert (experts == "shared") == (counters["stats"]["unique_graphs"] > 0)


def test_as_a_gpu_runs_it_no_step_is_compiled_anew(rng: random.Random) -> None:
    """As many rows as numbers in a patch among them, and latents of several shapes."""
    torch._dynamo.reset()
    counters.clear()
    model = tiny_model(seed=rng.randrange(1000))
    engine = TorchEngine(model)
    engine.model = copy_with_its_weights(model)
    compile_for_generation(engine.model, backend="aot_eager")
    assert model.config.patch_dim == 12
    for number, side in ((6, 4), (5, 4), (6, 6), (1, 2), (12, 4)):
        made = [image_request(model.config, [7] * 5, seed=index, image_shape=(side, 4)) for index in range(number)]
        requests = [*made, text_request(model.config, [9] * number, seed=3, max_new_tokens=3)]
        options = SamplingOptions(num_steps=2, guidance_scale=2.0)
        wanted = generate(TorchEngine(model), requests, options, num_slots=number)
        for got, want in zip(generate(engine, requests, options, num_slots=number), wanted, strict=True):
            for one, other in zip(got.segments, want.segments, strict=True):
                values = [part.values if isinstance(part, Latent) else part for part in (one, other)]
                torch.testing.assert_close(*values, rtol=1e-4, atol=1e-4)
    # Each of the two pieces for a single position, and for any number.
    assert 0 < counters["stats"]["unique_graphs"] <= 4
    assert "qkv" not in vars(model.transformer.blocks[0]), "the model that was given is as it was"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("mode", ["compiled", "graphs"])
@pytest.mark.parametrize("experts", ["shared", "full"])
def test_every_mode_generates_what_eager_torch_does(mode: Mode, experts: str, rng: random.Random) -> None:
    """Twice, so that graphs captured in the first generation are replayed in the second."""
    model = tiny_model(seed=rng.randrange(1000), experts=experts, max_length=600).cuda()
    config = tiny_config()
    requests = [
        *(image_request(config, [7 + index] * 5, seed=index, image_shape=(8, 8)) for index in range(3)),
        text_request(config, [9, 10], seed=3, max_new_tokens=12),
        Request((torch.tensor([1, 8, 9, 3]),), 4, max_new_tokens=5, max_latents=1, shapes=((4, 6),)),
    ]
    options = SamplingOptions(num_steps=6, guidance_scale=2.0)
    wanted = generate(TorchEngine(model), requests, options, num_slots=3)
    engine = TorchEngine(model, mode=mode)
    for _ in range(2):
        for got, want in zip(generate(engine, requests, options, num_slots=3), wanted, strict=True):
            for one, other in zip(got.segments, want.segments, strict=True):
                values = [part.values if isinstance(part, Latent) else part for part in (one, other)]
                torch.testing.assert_close(*values, rtol=1e-3, atol=1e-3)
