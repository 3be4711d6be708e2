"""Every engine generates the same, and guidance matters on each."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
import torch

from core.errors import BadInput
from export.builder.make_bundle import build_tensorrt
from export.bundle import STEP_GRAPH
from export.run.engine_onnxruntime import OnnxRuntimeEngine, session_device, wanted_providers
from export.run.engines import open_engine
from model.generation.eager import TorchEngine
from model.generation.requests import Completion, Latent, SamplingOptions, caption_request, image_request, text_request
from model.generation.sampling import generate
from model.step import Engine, StepInputs
from tests.export.conftest import CONFIG, Made


def completions(engine: Engine, seed: int, guidance_scale: float) -> list[Completion]:
    config, generator = engine.config, torch.Generator().manual_seed(seed)
    latents = torch.randn(4, 8, 8, generator=generator)
    requests = [
        image_request(config, [7, 8, 9], seed=seed, image_shape=(8, 8)),
        caption_request(config, latents, seed=seed + 1, max_new_tokens=12),
        image_request(config, [70, 8, 9, 33, 44], seed=seed + 2, image_shape=(8, 8)),
        text_request(config, [50, 60], seed=seed + 3, max_new_tokens=15),
    ]
    options = SamplingOptions(num_steps=4, guidance_scale=guidance_scale)
    return generate(engine, requests, options, num_slots=3)


@pytest.fixture(scope="module")
def engines(made: Made, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Engine]:
    """Every engine that runs here, by name; TensorRT where it is installed with a GPU."""
    folder = tmp_path_factory.mktemp("engines")
    names = ["torch", "onnxruntime"]
    if build_tensorrt(made.bundle, CONFIG, folder).built:
        names.append("tensorrt")
    return {name: open_engine(made.bundle, name, engines=folder).engine for name in names}


def test_onnxruntime_generates_what_torch_generates(engines: dict[str, Engine]) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    wanted, got = (completions(engines[name], seed, 2.5) for name in ("torch", "onnxruntime"))
    for one, other in zip(wanted, got, strict=True):
        assert len(one.segments) == len(other.segments)
        for left, right in zip(one.segments, other.segments, strict=True):
            if isinstance(left, Latent):
                assert isinstance(right, Latent)
                print("image error", float((left.values - right.values).abs().max()))
                assert torch.allclose(left.values, right.values, atol=1e-4)
            else:
                assert torch.equal(left, right)  # type: ignore[arg-type]


def test_guidance_changes_the_picture_on_every_engine(engines: dict[str, Engine]) -> None:
    for name, engine in engines.items():
        without, with_guidance = (completions(engine, 5, scale)[0].images[0] for scale in (1.0, 3.0))
        print(name, float((with_guidance - without).abs().max()))
        assert float((with_guidance - without).abs().max()) > 1e-2


def test_guidance_at_scale_1_is_the_conditional_prediction_on_every_engine(engines: dict[str, Engine]) -> None:
    """A scale next to 1 runs the second row of every pair, which 1 leaves out, and must come to the same."""
    for name, engine in engines.items():
        alone, paired = (completions(engine, 6, scale)[0].images[0] for scale in (1.0, math.nextafter(1.0, 2.0)))
        print(name, float((paired - alone).abs().max()))
        assert torch.allclose(paired, alone, atol=1e-4)


def test_the_cache_is_written_in_place_and_only_in_its_rows(made: Made) -> None:
    engine = OnnxRuntimeEngine(made.bundle.folder / STEP_GRAPH, made.model.config)
    cache = engine.new_cache(4)
    addresses = [part.data_ptr() for part in cache]
    column = torch.arange(3).expand(2, -1)
    inputs = StepInputs(
        input_ids=torch.full((2, 3), 7),
        patches=torch.zeros(2, 3, made.model.config.patch_dim),
        token_type_ids=torch.zeros(2, 3, dtype=torch.int64),
        time=torch.zeros(2),
        position_ids=column,
        kv_end=column,
        cache_position=torch.tensor([0, 5]),
        logits_index=torch.tensor([2, 2]),
        kv_length=8,
        grids=((), ()),
    )
    engine.step(inputs, cache, slice(1, 3))
    with pytest.raises(ValueError, match="not 2 slots of a cache of 4"):
        engine.step(inputs, cache, slice(3, 5))
    assert [part.data_ptr() for part in cache] == addresses
    for part in cache:
        assert not part[0].any()
        assert not part[3].any()
        assert part[1, :, :3].all()
        assert not part[1, :, 3:].any()
        assert part[2, :, 5:8].all()
        assert not part[2, :, :5].any()


def test_providers_are_probed_not_believed(made: Made) -> None:
    engine = OnnxRuntimeEngine(made.bundle.folder / STEP_GRAPH, made.model.config)
    cuda = torch.cuda.is_available()
    assert ("CUDAExecutionProvider" in wanted_providers()) == cuda
    assert engine.device == session_device(engine.session)
    if not cuda:
        assert engine.device.type == "cpu"


def test_auto_says_what_it_passes_over(made: Made, tmp_path: Path) -> None:
    opened = open_engine(made.bundle, "auto", engines=tmp_path)
    assert opened.name == "onnxruntime"
    (reason,) = opened.passed_over
    assert reason.startswith("tensorrt: ")
    assert isinstance(open_engine(made.bundle, "torch").engine, TorchEngine)
    with pytest.raises(BadInput, match="TensorRT"):
        open_engine(made.bundle, "tensorrt", engines=tmp_path)
    with pytest.raises(BadInput, match="not one of"):
        open_engine(made.bundle, "abacus")
