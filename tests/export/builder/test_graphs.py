"""The exported graphs compute what eager torch computes, at shapes drawn anew in every run."""

from __future__ import annotations

import random
from pathlib import Path

import onnx
import pytest
import torch

from export.builder.end_to_end import NUM_AFTER, TIMES, end_to_end, max_error
from export.builder.graphs import DecoderGraph, EncoderGraph, StepGraph, step_spec
from export.builder.kv_cache_operator import scatter_cache, write_cache
from export.builder.make_bundle import problems
from export.builder.parity import ShapeSet, compare_step, difference, image_parity, largest_error, random_step, step_parity
from export.builder.to_onnx import export_graph
from export.bundle import DECODER_GRAPH, ENCODER_GRAPH, STEP_GRAPH
from export.graph_names import STEP_INPUTS, cache_names
from export.run.engine_onnxruntime import OnnxRuntimeEngine, open_session
from model.generation.eager import TorchEngine
from tests.export.conftest import Made


def test_the_bundle_is_exported_within_its_limits(made: Made) -> None:
    print(f"export took {made.seconds:.1f} s")
    assert problems(made.parity) == []
    assert set(made.parity["graphs"]) == {STEP_GRAPH, ENCODER_GRAPH, DECODER_GRAPH, "end_to_end"}
    for graph, entry in made.parity["graphs"].items():
        print(graph, entry["largest_error"])
        assert 0 < entry["largest_error"] <= 1e-4
        assert len(entry.get("shapes", range(4))) >= 4


def test_parity_at_random_shapes(made: Made) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    session = open_session(made.bundle.folder / STEP_GRAPH)
    longest = made.model.config.max_position_embeddings
    for _ in range(6):
        filled = tuple(rng.randrange(longest - 1) for _ in range(rng.randint(1, 5)))
        num_positions = rng.randint(1, longest - 1 - max(filled))
        kv_length = rng.randint(max(filled) + num_positions, longest)
        shapes = ShapeSet("random", filled, num_positions, kv_length)
        print(shapes)
        assert largest_error([compare_step(made.model, session, random_step(made.model.config, shapes, generator))]) <= 1e-4


def test_end_to_end_equals_one_full_forward(made: Made) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    for engine in (TorchEngine(made.model), OnnxRuntimeEngine(made.bundle.folder / STEP_GRAPH, made.model.config)):
        result = end_to_end(made.model, engine, num_patches=8, seed=seed)
        print(type(engine).__name__, max_error(result))
        assert len(result) == len(TIMES) + NUM_AFTER
        assert max_error(result) <= 1e-4


def test_end_to_end_notices_an_engine_that_ignores_the_commit(made: Made) -> None:
    """The check must be able to fail: here the clean pass is dropped, so later text sees the noised image."""

    class Forgetful(TorchEngine):
        def step(self, inputs, cache, rows):
            if bool(inputs.token_type_ids.all()) and float(inputs.time.max()) == 0:
                return super().step(inputs, self.new_cache(rows.stop), rows)
            return super().step(inputs, cache, rows)

    assert max_error(end_to_end(made.model, Forgetful(made.model), num_patches=8, seed=1)) > 1e-3


def test_autoencoder_graphs_hold_the_normalisation(made: Made) -> None:
    pixels = {"a": torch.rand(2, 3, 16, 24) * 2 - 1}
    latents = {"a": torch.randn(3, 4, 6, 8)}
    folder = made.bundle.folder
    assert largest_error(image_parity(EncoderGraph(made.autoencoder), folder / ENCODER_GRAPH, pixels)) <= 1e-3
    assert largest_error(image_parity(DecoderGraph(made.autoencoder), folder / DECODER_GRAPH, latents)) <= 1e-3


def test_parity_notices_other_weights(made: Made) -> None:
    other = StepGraph(made.model, opset=24).model.__class__(made.model.config).eval()
    assert largest_error(step_parity(other, made.bundle.folder / STEP_GRAPH, num_patches=4, seed=0)) > 1e-2


def test_interface_and_operators(made: Made) -> None:
    graph = onnx.load(str(made.bundle.folder / STEP_GRAPH), load_external_data=False).graph
    layers = made.model.config.num_hidden_layers
    assert [item.name for item in graph.input] == [*STEP_INPUTS, *cache_names("cache", layers)]
    assert [item.name for item in graph.output] == ["logits", "prediction", *cache_names("present", layers)]
    operators = [node.op_type for node in graph.node]
    assert operators.count("TensorScatter") == 2 * layers
    assert operators.count("Attention") == layers
    # All weights are in the file beside, and no path of the exporting machine is anywhere.
    assert (made.bundle.folder / f"{STEP_GRAPH}.data").stat().st_size > 4 * 20_000
    assert str(Path.cwd()).encode() not in (made.bundle.folder / STEP_GRAPH).read_bytes()


def test_opset_23_falls_back_to_scatter(made: Made, tmp_path: Path) -> None:
    exported = export_graph(step_spec(made.model, opset=23), tmp_path / "step.onnx", opset=23, external_data=True)
    operators = {node.op_type for node in onnx.load(str(exported.path), load_external_data=False).graph.node}
    assert "ScatterND" in operators
    assert "TensorScatter" not in operators
    assert largest_error(step_parity(made.model, exported.path, num_patches=4, seed=3)) <= 1e-4
    engine = OnnxRuntimeEngine(exported.path, made.model.config)
    assert max_error(end_to_end(made.model, engine, num_patches=8, seed=3)) <= 1e-4


def test_cache_write_is_what_it_says() -> None:
    cache, new, cache_position = torch.randn(3, 2, 10, 4), torch.randn(3, 2, 3, 4), torch.tensor([0, 7, 2])
    wanted = cache.clone()
    for row, start in enumerate(cache_position.tolist()):
        wanted[row, :, start : start + 3] = new[row]
    assert torch.equal(scatter_cache(cache, new, cache_position), wanted)
    assert torch.equal(write_cache(cache, new, cache_position), wanted)


def test_difference() -> None:
    one = difference(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5]))
    assert (one.max_abs, one.rel_l2) == (0.5, 0.1)
    assert one.cosine == pytest.approx(27 / (5 * 29.25**0.5))
    assert difference(torch.ones(2), torch.tensor([1.0, float("nan")])).max_abs == float("inf")
    with pytest.raises(ValueError, match="differ"):
        difference(torch.ones(2), torch.ones(3))
