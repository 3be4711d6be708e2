"""A model of several modalities with weights of their own leaves as one graph that computes what torch computes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from core.errors import GateRefused
from export.builder.end_to_end import NUM_AFTER, TIMES, end_to_end, max_error
from export.builder.graphs import step_spec
from export.builder.make_bundle import Sources, build_bundle
from export.builder.parity import largest_error, step_parity
from export.builder.to_onnx import export_graph
from export.run.engine_onnxruntime import OnnxRuntimeEngine
from model.config import Experts, Modality, ModelConfig, PatchLayersKind, model_config
from model.generation.eager import TorchEngine
from model.generation.requests import Latent, Request, SamplingOptions
from model.generation.sampling import generate
from model.transfusion import Transfusion
from tests.export.conftest import CONFIG, EVALUATED, PREPARATION, Made, lively_model


class Exported(NamedTuple):
    model: Transfusion
    path: Path


def several(experts: Experts, *, qk_norm: bool, patch_layers: PatchLayersKind = "linear") -> ModelConfig:
    """Images, and sounds whose patches are wider."""
    channels = (8, 8) if patch_layers == "unet" else ()
    image = Modality(
        name="image",
        channels=4,
        patch_size=(2, 2),
        patch_layers=patch_layers,
        unet_channels=channels,
        begin_token_id=3,
        end_token_id=4,
    )
    sound = Modality(
        name="sound", channels=6, patch_size=(4,), patch_layers="linear", unet_channels=(), begin_token_id=5, end_token_id=6
    )
    return model_config(
        "tiny",
        vocab_size=64,
        modalities=(image, sound),
        prediction_type="v",
        max_position_embeddings=64,
        special_ids={"pad": 0, "bos": 1, "eos": 2},
        experts=experts,
        qk_norm=qk_norm,
    )


@pytest.fixture(scope="module", params=["feed_forward", "full"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    torch.manual_seed(5)
    model = lively_model(several(request.param, qk_norm=request.param == "full"))
    path = tmp_path_factory.mktemp("modalities") / "step.onnx"
    return Exported(model, export_graph(step_spec(model, opset=24), path, opset=24, external_data=True).path)


def test_one_step_and_a_whole_document(exported: Exported) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    model, path = exported
    assert largest_error(step_parity(model, path, num_patches=9, seed=seed)) <= 1e-4
    for engine in (TorchEngine(model), OnnxRuntimeEngine(path, model.config)):
        found = end_to_end(model, engine, num_patches=9, seed=seed)
        print(type(engine).__name__, max_error(found))
        assert len(found) == 2 * (len(TIMES) + NUM_AFTER)
        assert max_error(found) <= 1e-4


def test_the_document_notices_an_engine_that_mixes_up_modalities(exported: Exported) -> None:
    class Confused(TorchEngine):
        def step(self, inputs, cache, rows):
            return super().step(inputs._replace(token_type_ids=inputs.token_type_ids.clamp(max=1)), cache, rows)

    found = end_to_end(exported.model, Confused(exported.model), num_patches=9, seed=1)
    assert max(entry.max_abs for name, entry in found.items() if "image" in name) <= 1e-4
    assert min(entry.max_abs for name, entry in found.items() if "sound" in name) > 1e-3


def test_it_generates_what_torch_generates(exported: Exported) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    model, path = exported
    picture = torch.randn(4, 4, 6, generator=torch.Generator().manual_seed(seed))
    shapes = ((4, 4), (12,))
    requests = [
        # Of a picture a sound, of a word a picture and then text.
        Request((torch.tensor([1, 9]), Latent(0, picture), torch.tensor([8, 5])), seed, 0, 1, shapes),
        Request((torch.tensor([1, 10, 3]),), seed + 1, 6, 1, shapes),
    ]
    options = SamplingOptions(num_steps=3, guidance_scale=2.0)
    wanted, got = (
        generate(engine, requests, options, num_slots=2)
        for engine in (TorchEngine(model), OnnxRuntimeEngine(path, model.config))
    )
    for one, other in zip(wanted, got, strict=True):
        assert len(one.segments) == len(other.segments) >= 1
        for left, right in zip(one.segments, other.segments, strict=True):
            if isinstance(left, Latent):
                assert isinstance(right, Latent)
                assert left.modality == right.modality
                assert torch.allclose(left.values, right.values, atol=5e-4)
            else:
                assert torch.equal(left, right)  # type: ignore[arg-type]
    first = wanted[0].segments[0]
    assert isinstance(first, Latent)
    assert (first.modality, first.values.shape) == (1, (6, 12))


def test_a_unet_patches_is_refused_before_anything_is_written(made: Made, tmp_path: Path) -> None:
    sources = Sources(tmp_path / "model", made.sources.autoencoder, made.sources.tokenizer)
    Transfusion(several("shared", qk_norm=False, patch_layers="unet")).save_pretrained(sources.model)
    folder = tmp_path / "bundle"
    folder.mkdir()
    # Of another path than the other bundle's model, and so with another solver.
    evaluated = EVALUATED._replace(sampling=SamplingOptions(num_steps=4, guidance_scale=3.5))
    with pytest.raises(GateRefused, match="the U-Net of image cannot be exported yet"):
        build_bundle(sources, folder, CONFIG, preparation=PREPARATION, evaluated=evaluated)
    assert not list(folder.iterdir())
