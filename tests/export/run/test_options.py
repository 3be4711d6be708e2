"""What a caller sets reaches the generation: every option against torch itself under the same, and nothing odd is taken."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.images import OWN_RULES
from core.random import seed_of_name
from core.tokenizer import read_tokenizer
from export.builder.make_bundle import MAX_NEW_TOKENS
from export.bundle import TOKENIZER
from export.config import InferConfig, PredictOptions
from export.run.batch import BatchActor, actor_settings
from export.run.pictures import read_pixels
from export.run.predictor import Predictor
from export.run.requests import Prompt
from model.diffusion.solvers import Solver
from model.generation.eager import TorchEngine
from model.generation.requests import (
    Completion,
    Latent,
    Request,
    SamplingOptions,
    caption_request,
    image_request,
    text_request,
)
from model.generation.sampling import generate
from tests.export.conftest import EVALUATED, Made, png

# No value is the default of anything.
OPTIONS = PredictOptions(batch_size=3, guidance_scale=3.25, num_solver_steps=3, max_new_tokens=5, seed=41)
OTHERS = {"guidance_scale": 1.5, "num_solver_steps": 2, "max_new_tokens": 9, "seed": 42}
PICTURE = png(16, 16)
WORDS = "a red three top left"


@pytest.fixture(scope="module")
def predictor(made: Made) -> Predictor:
    return Predictor.open(made.bundle.folder)


def by_torch(made: Made, prompt: Prompt, options: PredictOptions, solver: Solver = EVALUATED.sampling.solver) -> Completion:
    """What the trained model generates, without graphs, batches or neighbours."""
    config, seed = made.model.config, seed_of_name(options.seed, prompt.id)
    ids = read_tokenizer(made.bundle.folder / TOKENIZER).encode(prompt.prompt)
    if prompt.task == "text_to_image":
        request = image_request(config, ids, seed=seed, image_shape=(8, 8))
    elif prompt.task == "image_to_text":
        assert isinstance(prompt.image, bytes)
        with torch.no_grad():
            latents = made.autoencoder.encode_moments(read_pixels(prompt.image, 16, OWN_RULES)).mean[0]
        request = caption_request(config, latents, seed=seed, max_new_tokens=options.max_new_tokens)
    else:
        request = text_request(config, ids, seed=seed, max_new_tokens=options.max_new_tokens)
    sampling = SamplingOptions(num_steps=options.num_solver_steps, guidance_scale=options.guidance_scale, solver=solver)
    return generate(TorchEngine(made.model), [request], sampling, num_slots=1)[0]


def grey_levels(latents: torch.Tensor, made: Made) -> np.ndarray:
    with torch.no_grad():
        pixels = made.autoencoder.decode(latents[None])[0]
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().permute(1, 2, 0).numpy()


def drawn(answer_png: bytes) -> np.ndarray:
    return ((read_pixels(answer_png, 16, OWN_RULES)[0] + 1) * 127.5).round().permute(1, 2, 0).numpy()


@pytest.mark.parametrize("changed", [None, "guidance_scale", "num_solver_steps", "seed"])
def test_a_picture_is_torch_s_own_under_the_same_options(made: Made, predictor: Predictor, changed: str | None) -> None:
    options = dataclasses.replace(OPTIONS, **({changed: OTHERS[changed]} if changed else {}))
    prompts = [Prompt(id, "text_to_image", WORDS) for id in ("a", "b")]
    for prompt, answer in zip(prompts, predictor.predict(prompts, options), strict=True):
        wanted, others = (grey_levels(by_torch(made, prompt, each).images[0], made) for each in (options, OPTIONS))
        assert np.abs(drawn(answer.image_png) - wanted).max() <= 1
        # The option matters here, or equal pictures would show nothing.
        assert changed is None or np.abs(wanted - others).max() > 3


@pytest.mark.parametrize("number", [1, 2, 5, 9])
def test_an_answer_in_words_has_as_many_tokens_as_were_asked_for(made: Made, predictor: Predictor, number: int) -> None:
    options = dataclasses.replace(OPTIONS, max_new_tokens=number)
    prompts = [Prompt("t", "text", "a blue"), Prompt("c", "image_to_text", image=PICTURE)]
    for prompt, answer in zip(prompts, predictor.predict(prompts, options), strict=True):
        wanted = by_torch(made, prompt, options).text
        longer = by_torch(made, prompt, dataclasses.replace(OPTIONS, max_new_tokens=20)).text
        assert answer.num_tokens == len(wanted) == min(number, len(longer))
        assert answer.text == predictor.tokenizer.decode(longer[:number].tolist())
        # The model would go on, so it is the option that ends the answer.
        assert len(longer) > 9


def test_requests_of_one_call_keep_what_each_asks_for(made: Made, predictor: Predictor) -> None:
    """Numbers of tokens, seeds and sizes of pictures of their own, one slot fewer than requests, on every engine."""
    config = made.model.config
    requests: list[Request] = [
        text_request(config, [50, 60], seed=1, max_new_tokens=2),
        text_request(config, [50, 60], seed=1, max_new_tokens=11),
        image_request(config, [7, 8], seed=2, image_shape=(8, 8)),
        image_request(config, [7, 8], seed=3, image_shape=(8, 8)),
        image_request(config, [7, 8], seed=2, image_shape=(4, 6)),
    ]
    sampling = SamplingOptions(num_steps=3, guidance_scale=2.5)
    alone = [generate(TorchEngine(made.model), [request], sampling, num_slots=1)[0] for request in requests]
    assert [len(each.text) for each in alone[:2]] == [2, 11]
    assert [tuple(each.images[0].shape) for each in alone[2:]] == [(4, 8, 8), (4, 8, 8), (4, 4, 6)]
    assert not torch.allclose(alone[2].images[0], alone[3].images[0], atol=1e-2)
    for engine in (TorchEngine(made.model), predictor.opened.engine):
        for wanted, got in zip(alone, generate(engine, requests, sampling, num_slots=4), strict=True):
            for left, right in zip(wanted.segments, got.segments, strict=True):
                if isinstance(left, Latent):
                    assert isinstance(right, Latent) and torch.allclose(left.values, right.values, atol=1e-4)
                else:
                    assert torch.equal(left, right)  # type: ignore[arg-type]


def test_what_nobody_chose_is_as_measured(made: Made, predictor: Predictor) -> None:
    sampling = EVALUATED.sampling
    options = predictor.options()
    assert (options.guidance_scale, options.num_solver_steps) == (sampling.guidance_scale, sampling.num_steps)
    assert (options.max_new_tokens, options.seed) == (MAX_NEW_TOKENS, 0)
    chosen = predictor.options(guidance_scale=1.5)
    assert chosen == dataclasses.replace(options, guidance_scale=1.5)
    prompt = Prompt("a", "text_to_image", WORDS)
    (answer,) = predictor.predict([prompt])
    measured, euler = (grey_levels(by_torch(made, prompt, options, solver).images[0], made) for solver in ("heun", "euler"))
    assert np.abs(drawn(answer.image_png) - measured).max() <= 1
    assert np.abs(measured - euler).max() > 3
    assert answer == predictor.predict([prompt], options)[0]
    with pytest.raises(ValueError, match=r"^guidance is no option; there are batch_size, guidance_scale, "):
        predictor.options(guidance=2.0)


def test_params_reach_the_batches_of_infer(made: Made, predictor: Predictor, tmp_path: Path) -> None:
    config = InferConfig(requests=str(tmp_path / "r.jsonl"), engine="onnxruntime", **dataclasses.asdict(OPTIONS))
    settings = actor_settings(made.bundle.folder, tmp_path, config, tmp_path / "out")
    actor = BatchActor(**settings)
    assert dataclasses.asdict(actor.options).items() >= dataclasses.asdict(OPTIONS).items()
    lines = [Prompt("a", "text", "a blue", line=1), Prompt("b", "text_to_image", WORDS, line=2)]
    answers = [actor({"lines": [line], "tries": 0})["answers"][0] for line in lines]
    text, picture = predictor.predict(lines, OPTIONS)
    assert answers[0]["generated_text"] == text.text
    assert (tmp_path / "out" / answers[1]["generated_image"]).read_bytes() == picture.image_png


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("num_solver_steps", value) for value in (0, -1, 10_001, 2.5, 2.0, NAN, "2", True, None, [2], 10**5000)),
        *(("max_new_tokens", value) for value in (0, -5, 10**9, 1.0, INF, "64", False)),
        *(("batch_size", value) for value in (0, -1, 10**6, "all", None)),
        *(("guidance_scale", value) for value in (0, -1.0, NAN, INF, -INF, 1e30, "2", True, None)),
        *(("seed", value) for value in (1.5, NAN, "1", None, True)),
    ],
    ids=lambda value: str(value)[:12] if not isinstance(value, int) or abs(value) < 10**20 else "huge",
)
def test_an_option_that_cannot_be_used_is_refused_by_name(name: str, value: Any) -> None:
    for kind, rest in ((PredictOptions, {}), (InferConfig, {"requests": "r", "engine": "auto"})):
        with pytest.raises(ValueError, match=rf"^{name}: .* must be a .*number") as refused:
            kind(**{**dataclasses.asdict(OPTIONS), **rest, name: value})
        assert "\n" not in str(refused.value) and len(str(refused.value)) < 200


def test_options_at_their_limits_are_taken() -> None:
    for name, values in {
        "num_solver_steps": (1, 10_000),
        "max_new_tokens": (1, 1_000_000),
        "batch_size": (1, 4096),
        "guidance_scale": (1e-6, 1, 1000),
        "seed": (-(2**70), 0, 2**70),
    }.items():
        for value in values:
            assert getattr(dataclasses.replace(OPTIONS, **{name: value}), name) == value
