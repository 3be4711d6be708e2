"""A bundle is measured on the engine that is asked for: in torch its figures are the weights' own, elsewhere nearly."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from components.data.documents import SPLITS, Document, ImageSegment, TextSegment, document_parts, read_part, write_documents
from components.data.encode.latents import EncodeSettings, encode_part
from components.data.quarantine import validation_facts
from components.data.shards import shard_path, write_shard
from components.evaluation.captions.measure import CaptionedPicture, captions_of
from components.evaluation.config import RetrievalConfig
from components.evaluation.results import EvaluationTarget
from components.evaluation.sampling import images_of
from components.evaluation.suite import measure
from components.runtime.ancestors import ANCESTORS, content_digest
from core.errors import BadInput
from core.files import read_json, write_json, write_text
from core.manifest import read_manifest, write_manifest
from core.png import encode_png
from core.tokenizer import load_tokenizer
from export.bundle import Bundle, open_bundle
from export.engine_key import MAX_ROWS, profile_for, step_profiles
from export.run.engines import OpenedEngine
from model.generation.eager import SlotCache, TorchEngine
from model.latents.autoencoder import Autoencoder
from model.step import StepInputs, StepOutput
from model.transfusion import Transfusion
from pipelines import evaluate_bundle, paths
from pipelines.evaluation_inputs import measured_with, read_data
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
        quarantine = paths.QUARANTINE / f"{gate}.jsonl"
        write_text(quarantine, "")
        write_json(paths.REPORTS / f"validate/{gate}.json", validation_facts(gate, quarantine, {}))
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


def test_what_is_quarantined_is_what_the_gates_judged(data: Path, small: Params) -> None:
    quarantine = paths.QUARANTINE / "latents.jsonl"
    quarantine.write_text('{"key": "noise/test0", "reason": "none"}\n')
    try:
        with pytest.raises(BadInput, match=r"latents\.jsonl"):
            evaluate_bundle.run(small, data, "torch")
    finally:
        quarantine.write_text("")


class Narrow(TorchEngine):
    """Refuses what a TensorRT engine of the bundle does."""

    def step(self, inputs: StepInputs, cache: SlotCache, rows: slice) -> StepOutput:
        profiles = step_profiles(self.config, 16, MAX_ROWS)
        profile_for(profiles, *inputs.input_ids.shape)
        return super().step(inputs, cache, rows)


def test_an_engine_for_so_many_rows_is_given_no_more(data: Path, small: Params) -> None:
    config = dataclasses.replace(small.evaluate, batch_size=MAX_ROWS + 1, num_solver_steps=1)
    engine = Narrow(Transfusion.from_pretrained(paths.TRAIN))
    target = evaluate_bundle.target_of(open_bundle(data), OpenedEngine(engine, "tensorrt", ()))
    held_out, prompts = read_data(small)[0], ["a red three"] * (MAX_ROWS + 1)
    assert config.guidance_scale != 1 and len(images_of(target, held_out, prompts, config)) == len(prompts)
    picture = CaptionedPicture(held_out.images[0], ("a",))
    assert len(captions_of([picture] * len(prompts), target, config, 0.0)) == len(prompts)
    wide = evaluate_bundle.target_of(open_bundle(data), OpenedEngine(engine, "torch", ()))
    with pytest.raises(ValueError, match="fits no profile of at most 64 rows"):
        images_of(wide, held_out, prompts, config)


def test_an_engine_that_does_not_run_here_is_named(data: Path, small: Params) -> None:
    if torch.cuda.is_available():
        pytest.skip("TensorRT may run here")
    with pytest.raises(BadInput, match="tensorrt"):
        evaluate_bundle.run(small, data, "tensorrt")


def test_the_evaluation_that_the_bundle_was_made_with_is_known(
    exported: Path, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, figures = open_bundle(exported), {"captions/exact": 0.25}
    monkeypatch.chdir(tmp_path)
    write_json(paths.EVALUATION / "metrics.json", figures)
    about = measured_with(params, "torch")
    manifest = write_manifest(paths.EVALUATION, kind="evaluation", names=["metrics.json"], measured_with=about)
    own = bundle._replace(manifest=bundle.manifest | {ANCESTORS: {"evaluation": content_digest(manifest)}})

    def found(bundle: Bundle, **changed: int) -> dict[str, float]:
        settings = dataclasses.replace(params, evaluate=dataclasses.replace(params.evaluate, **changed))
        return evaluate_bundle.evaluated(bundle, measured_with(settings, "onnxruntime"))

    assert found(own) == figures and found(own, batch_size=8) == figures, "no figure depends on the batch size"
    assert found(own, seed=18) == {} and found(bundle) == {}


def test_figures_stand_beside_those_of_the_evaluation() -> None:
    lines = evaluate_bundle.beside(
        {"captions/exact": 0.5, "text/perplexity": 3.0}, {"captions/exact": 0.25, "text/perplexity": 3.0}
    )
    assert [line.split()[0] for line in lines] == ["captions/exact", "text/perplexity"]
    assert lines[0].endswith("evaluate: 0.2500") and lines[1].endswith("the same in evaluate")
