"""A bundle is measured on the engine that is asked for: in torch its figures are the weights' own, elsewhere nearly."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from components.data.documents import SPLITS, Document, ImageSegment, TextSegment, document_parts, read_part, write_documents
from components.data.encode.latents import EncodeSettings, encode_part
from components.data.shards import shard_path, write_shard
from components.evaluation.config import RetrievalConfig
from components.evaluation.results import EvaluationTarget
from components.evaluation.suite import measure
from core.errors import BadInput
from core.files import read_json, write_text
from core.manifest import read_manifest, write_manifest
from core.png import encode_png
from core.tokenizer import load_tokenizer
from model.latents.autoencoder import Autoencoder
from model.transfusion import Transfusion
from pipelines import evaluate_bundle, paths
from pipelines.evaluation_inputs import read_data
from pipelines.sections import Params
from tests.pipelines.bundle_stages.trained_folder import SIDE_PX

NUM = 12
GENERATED = ("captions/", "distribution/", "guidance/", "memorisation/")


@pytest.fixture(scope="module")
def small(params: Params) -> Params:
    full = params.evaluate
    config = dataclasses.replace(
        full,
        num_captions=NUM,
        num_loss_images=4,
        num_solver_steps=2,
        loss_times=(0.5,),
        x_0_error_times=(0.5,),
        retrieval=RetrievalConfig(group_size=2, num_groups=1, noise_levels=(0.5,)),
        num_pictures=NUM,
        num_training_pictures=NUM,
        memorisation=dataclasses.replace(full.memorisation, held_out_share=0.25),
        guidance_sweep=dataclasses.replace(full.guidance_sweep, scales=(1.0, 4.0), num_prompts=NUM),
    )
    return dataclasses.replace(params, evaluate=config)


@pytest.fixture(scope="module")
def data(exported: Path) -> Path:
    """Captioned pictures of noise beside the exported model, encoded by its own parts; returns the bundle."""
    tokenizer, autoencoder = load_tokenizer(paths.TOKENIZER), Autoencoder.from_pretrained(paths.AUTOENCODER)
    settings = EncodeSettings(batch_size=8, row_length=96, patch_side=2, image_side_px=SIDE_PX)
    for number, split in enumerate(SPLITS):
        images = np.random.default_rng(number).integers(0, 256, (NUM, SIDE_PX, SIDE_PX, 3), np.uint8)
        documents = [
            Document(
                key=f"{split}{index}",
                source="noise",
                split=split,
                segments=(TextSegment(f"a red three number {index}"), ImageSegment(encode_png(image))),
            )
            for index, image in enumerate(images)
        ]
        write_documents(paths.DOCUMENTS, split, documents, 99)
        for part in document_parts(paths.DOCUMENTS, split):
            encoded = encode_part(read_part(part), tokenizer, autoencoder, settings, device=torch.device("cpu"))
            write_shard(shard_path(paths.LATENTS, split, 0), encoded.shard)
    write_manifest(paths.DOCUMENTS, kind="documents", kept_out_pairs=[])
    write_manifest(paths.LATENTS, kind="latents")
    for gate in ("documents", "latents"):
        write_text(paths.QUARANTINE / f"{gate}.jsonl", "")
    return exported


def test_every_engine_measures_the_same_model(data: Path, small: Params, capsys: pytest.CaptureFixture[str]) -> None:
    autoencoder = Autoencoder.from_pretrained(paths.AUTOENCODER)
    target = EvaluationTarget(Transfusion.from_pretrained(paths.TRAIN), autoencoder, load_tokenizer(paths.TOKENIZER))
    wanted = measure(target, *read_data(small), [], small.evaluate).metrics
    for engine in ("torch", "onnxruntime"):
        found = evaluate_bundle.run(small, data, engine)
        assert found.keys() == wanted.keys() and any(key.startswith(GENERATED) for key in found)
        for key, value in wanted.items():
            # Losses are the weights' own. A picture's rounding may move it over a neighbour's boundary, or a caption's word.
            allowed = 0.2 if key.startswith(GENERATED) else 0.0
            assert found[key] == pytest.approx(value, rel=allowed, abs=allowed), (engine, key)
        folder = evaluate_bundle.REPORT / engine
        manifest = read_manifest(folder, kind="bundle evaluation")
        assert manifest["measured_with"]["engine"] == engine
        assert manifest["measured_with"]["settings"]["seed"] == small.evaluate.seed
        assert manifest["ancestors"]["bundle"] and read_json(folder / "metrics.json") == found
        assert read_json(folder / "intervals.json").keys() <= found.keys()
        said = capsys.readouterr().out
        assert f"engine: {engine}\n" in said and "no evaluation of this bundle with these settings" in said


def test_an_engine_that_does_not_run_here_is_named(data: Path, small: Params) -> None:
    if torch.cuda.is_available():
        pytest.skip("TensorRT may run here")
    with pytest.raises(BadInput, match="tensorrt"):
        evaluate_bundle.run(small, data, "tensorrt")


def test_figures_stand_beside_those_of_the_evaluation() -> None:
    lines = evaluate_bundle.beside(
        {"captions/exact": 0.5, "text/perplexity": 3.0}, {"captions/exact": 0.25, "text/perplexity": 3.0}
    )
    assert [line.split()[0] for line in lines] == ["captions/exact", "text/perplexity"]
    assert lines[0].endswith("evaluate: 0.2500") and lines[1].endswith("the same in evaluate")
