"""Every engine generates the same, and guidance matters on each."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from export.bundle import STEP_GRAPH
from export.engine_onnxruntime import OnnxRuntimeEngine, session_device, wanted_providers
from export.engines import open_engine
from export.failure import ExportRefused
from model.eager import TorchEngine
from model.engine import Engine, StepInputs
from model.requests import Completion, SamplingOptions, caption_request, image_request, text_request
from model.sampling import generate
from tests.export.conftest import Made


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


def engines(made: Made) -> dict[str, Engine]:
    return {name: open_engine(made.bundle, name).engine for name in ("torch", "onnxruntime")}


def test_onnxruntime_generates_what_torch_generates(made: Made) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    wanted, got = (completions(engine, seed, 2.5) for engine in engines(made).values())
    for one, other in zip(wanted, got, strict=True):
        assert len(one.segments) == len(other.segments)
        for left, right in zip(one.segments, other.segments, strict=True):
            if left.dim() == 1:
                assert torch.equal(left, right)
            else:
                print("image error", float((left - right).abs().max()))
                assert torch.allclose(left, right, atol=1e-4)


def test_guidance_changes_the_picture_on_every_engine(made: Made) -> None:
    for name, engine in engines(made).items():
        with_guidance, without = completions(engine, 5, 3.0)[0], completions(engine, 5, 1.0)[0]
        change = float((with_guidance.images[0] - without.images[0]).abs().max())
        print(name, change)
        assert change > 1e-2


def test_the_cache_is_written_in_place_and_only_in_its_rows(made: Made) -> None:
    engine = OnnxRuntimeEngine(made.bundle.folder / STEP_GRAPH, made.model.config)
    cache = engine.new_cache(4)
    addresses = [part.data_ptr() for part in cache]
    column = torch.arange(3).expand(2, -1)
    inputs = StepInputs(
        ids=torch.full((2, 3), 7),
        patches=torch.zeros(2, 3, made.model.config.patch_width),
        is_image=torch.zeros(2, 3, dtype=torch.bool),
        time=torch.zeros(2),
        position=column,
        q_last=column,
        write_at=torch.tensor([0, 5]),
        read_at=torch.tensor([2, 2]),
        num_keys=8,
    )
    engine.step(inputs, cache, slice(1, 3))
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
    with pytest.raises(ExportRefused, match="TensorRT"):
        open_engine(made.bundle, "tensorrt", engines=tmp_path)
    with pytest.raises(ExportRefused, match="not one of"):
        open_engine(made.bundle, "abacus")
