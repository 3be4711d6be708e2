"""What can be known of the TensorRT build without TensorRT: profiles, the in-memory patch, the key and its refusals."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
from pathlib import Path

import onnx
import pytest
import torch

from core.errors import GateRefused
from export.builder import to_tensorrt
from export.builder.make_bundle import build_tensorrt
from export.builder.to_tensorrt import decomposable_graph
from export.bundle import STEP_GRAPH
from export.engine_key import (
    FLAGS,
    PLAN,
    SIDECAR,
    EngineKey,
    find_tensorrt,
    graph_digest,
    input_shapes,
    profile_for,
    refusal,
    step_profiles,
    write_sidecar,
)
from model.generation.eager import SlotCache, TorchEngine
from model.generation.requests import SamplingOptions, caption_request, edit_request, image_request, text_request
from model.generation.sampling import generate
from model.step import StepInputs, StepOutput
from model.transfusion import Transfusion
from tests.export.conftest import CONFIG, Made


@pytest.fixture
def key(made: Made) -> EngineKey:
    return EngineKey(
        format_version=1,
        graph_sha256=graph_digest(made.bundle.folder / STEP_GRAPH),
        tensorrt="11.4.0",
        gpu="a card",
        compute_capability="9.0",
        driver="580.1",
        cuda="13.0",
        flags=FLAGS,
        profiles=step_profiles(made.model.config, 16, 8),
    )


@pytest.fixture
def folder(key: EngineKey, tmp_path: Path) -> Path:
    (tmp_path / PLAN).write_bytes(b"plan" * 100)
    write_sidecar(tmp_path, key, build_seconds=1.0)
    return tmp_path


def test_what_a_killed_build_left_goes_with_the_next(key: EngineKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = os.fork()
    if not child:
        monkeypatch.setattr(to_tensorrt, "write_sidecar", lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
        to_tensorrt.store_plan(tmp_path / "engines/one", b"half", key, 1.0)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert [path.name.startswith(".building-") for path in (tmp_path / "engines").iterdir()] == [True]
    to_tensorrt.store_plan(tmp_path / "engines/one", b"plan" * 100, key, 1.0)
    assert [path.name for path in (tmp_path / "engines").iterdir()] == ["one"]
    assert refusal(tmp_path / "engines/one", key) == ""


def test_the_right_engine_is_not_refused(key: EngineKey, folder: Path) -> None:
    assert refusal(folder, key) == ""


CHANGES = {
    "graph_sha256": "0" * 64,
    "tensorrt": "11.4.1",
    "gpu": "another card",
    "compute_capability": "8.9",
    "driver": "580.2",
    "cuda": "12.9",
    "flags": ("strongly_typed",),
    "profiles": (),
    "format_version": 2,
}


def test_every_field_of_the_key_is_tried(key: EngineKey) -> None:
    assert set(CHANGES) == {field.name for field in dataclasses.fields(key)}


@pytest.mark.parametrize("field", sorted(CHANGES))
def test_an_engine_of_elsewhere_is_refused(key: EngineKey, folder: Path, field: str) -> None:
    other = dataclasses.replace(key, **{field: CHANGES[field]})
    assert f"was built for {field}" in refusal(folder, other)
    assert other.digest != key.digest


def test_changed_bytes_are_refused(key: EngineKey, folder: Path) -> None:
    for size in (0, 399):
        (folder / PLAN).write_bytes((b"plan" * 100)[:size])
        assert "does not have the bytes" in refusal(folder, key)
    (folder / PLAN).unlink()
    assert "does not have the bytes" in refusal(folder, key)
    for text in ("", "[]", "{}", '{"key": 3, "plan_sha256": ""}', json.dumps({"key": {}})):
        (folder / SIDECAR).write_text(text)
        assert "damaged" in refusal(folder, key)
    (folder / SIDECAR).unlink()
    assert "no engine was built" in refusal(folder, key)


def test_the_graph_digest_covers_the_weights(copied: Path) -> None:
    before = graph_digest(copied / STEP_GRAPH)
    weights = copied / f"{STEP_GRAPH}.data"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert graph_digest(copied / STEP_GRAPH) != before


class Recorder(TorchEngine):
    """Torch's engine, which also notes the rows, positions and keys of its steps."""

    def __init__(self, model: Transfusion) -> None:
        super().__init__(model)
        self.shapes = set[tuple[int, int, int]]()

    def step(self, inputs: StepInputs, cache: SlotCache, rows: slice) -> StepOutput:
        self.shapes.add((len(inputs.input_ids), inputs.input_ids.shape[1], inputs.kv_length))
        return super().step(inputs, cache, rows)


def test_profiles_cover_every_step_of_a_mixed_generation(made: Made) -> None:
    """Text, captions, pictures, edits and pictures with text after them, in all phases at once."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    config, engine, num_patches = made.model.config, Recorder(made.model), 16
    words = lambda: [rng.randrange(10, 300) for _ in range(rng.randrange(1, 9))]  # noqa: E731
    requests = []
    for number in range(6):
        latents = torch.randn(4, 8, 8, generator=generator)
        drawn = image_request(config, words(), seed=number, image_shape=(8, 8))
        requests += [
            text_request(config, words(), seed=number, max_new_tokens=rng.randrange(1, 9)),
            caption_request(config, latents, seed=number, max_new_tokens=rng.randrange(1, 9)),
            drawn,
            edit_request(config, latents, words(), seed=number),
            drawn._replace(max_new_tokens=rng.randrange(2, 9)),
        ]
    rng.shuffle(requests)
    options = SamplingOptions(num_steps=3, guidance_scale=2.0, guidance_interval=(0.0, 0.8), temperature=1.0)
    generate(engine, requests, options, num_slots=4)
    generate(engine, [each for each in requests if each.max_latents and each.max_new_tokens], options, num_slots=2)
    profiles = step_profiles(config, num_patches, 8)
    taken = {shape: profiles[profile_for(profiles, *shape[:2])] for shape in engine.shapes}
    for (num_rows, num_positions, kv_length), profile in taken.items():
        for size, limits in ((num_rows, profile.batch), (num_positions, profile.step), (kv_length, profile.keys)):
            assert limits.min <= size <= limits.max, profile
    assert {profile.name for profile in taken.values()} == {"decode", "denoise", "prefill"}
    # A picture on its way, and a finished one with its end token: the widest profile is tuned for other sizes.
    drawing = {positions for (_, positions, _), profile in taken.items() if profile.name == "denoise"}
    assert drawing == {num_patches, num_patches + 1}


def test_the_narrowest_profile_is_taken_and_what_fits_none_is_refused(made: Made) -> None:
    config = made.model.config
    profiles = step_profiles(config, 16, 8)
    assert [
        profiles[profile_for(profiles, 3, size)].name for size in (1, 16, 17, 5, 18, config.max_position_embeddings - 1)
    ] == [
        "decode",
        "denoise",
        "denoise",
        "prefill",
        "prefill",
        "prefill",
    ]
    for rows, size in ((9, 1), (1, config.max_position_embeddings)):
        with pytest.raises(ValueError, match="fits no profile"):
            profile_for(profiles, rows, size)


def test_profile_shapes_are_those_of_the_graph(made: Made) -> None:
    graph = onnx.load(str(made.bundle.folder / STEP_GRAPH), load_external_data=False).graph
    shapes = input_shapes(made.model.config, step_profiles(made.model.config, 16, 8)[2])
    assert set(shapes) == {item.name for item in graph.input}
    for item in graph.input:
        dims = item.type.tensor_type.shape.dim
        for shape in shapes[item.name]:
            assert len(shape) == len(dims)
            assert all(not dim.dim_value or dim.dim_value == size for dim, size in zip(dims, shape, strict=True))
        least, best, largest = shapes[item.name]
        assert all(a <= b <= c for a, b, c in zip(least, best, largest, strict=True))


def test_attention_may_fall_apart_in_memory_and_the_file_stays(made: Made) -> None:
    path = made.bundle.folder / STEP_GRAPH
    before = path.read_bytes()
    patched = onnx.ModelProto.FromString(decomposable_graph(path))
    marked = [node for node in patched.graph.node if any(a.name == "TRT_decomposable" and a.i == 1 for a in node.attribute)]
    assert [node.op_type for node in marked] == ["Attention"] * made.model.config.num_hidden_layers
    assert path.read_bytes() == before


def test_not_built_says_why(made: Made, tmp_path: Path) -> None:
    trt, missing = find_tensorrt()
    off = build_tensorrt(made.bundle, dataclasses.replace(CONFIG, tensorrt="off"), tmp_path)
    assert off == (False, "not built: export.tensorrt is off")
    auto = build_tensorrt(made.bundle, CONFIG, tmp_path)
    assert auto.built == (trt is not None)
    if trt is None:
        assert auto.why == f"not built: {missing}"
        with pytest.raises(GateRefused, match="required"):
            build_tensorrt(made.bundle, dataclasses.replace(CONFIG, tensorrt="required"), tmp_path)
