"""Every stage's input that was made from another ancestor than the rest is refused, by name and with what to run again.

Artefacts of a few bytes, under the manifests that stages write: a stage looks at those before it looks at anything else.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import onnx
import pytest

from components.data.quarantine import validation_facts
from core.errors import BadInput
from core.files import sha256, write_bytes, write_json, write_text
from core.manifest import write_manifest
from export.bundle import KIND, REQUIRED, GenerationConfig, write_generation_config
from model.config import image_modality, model_config
from pipelines import ancestry, autoencoder, encode, evaluate, export, infer, paths, register, train, validate
from pipelines.params import load
from pipelines.sections import Params

ROOT = Path(__file__).parents[2]
# Each artefact with what it is made from, in the order of the graph.
MADE_FROM = {
    "tokenizer": (),
    "documents": ("tokenizer",),
    "documents verdict": ("tokenizer", "documents"),
    "autoencoder": ("documents",),
    "latents": ("tokenizer", "documents", "documents verdict", "autoencoder"),
    "latents verdict": ("autoencoder", "latents"),
    "train": ("tokenizer", "autoencoder", "latents", "latents verdict"),
    "evaluation": ("tokenizer", "documents", "documents verdict", "autoencoder", "latents", "latents verdict", "train"),
    "bundle": ("tokenizer", "autoencoder", "train", "evaluation"),
}
SPECIAL_IDS = {"pad": 0, "bos": 1, "eos": 2, "boi": 3, "eoi": 4}


class Swapped(NamedTuple):
    """ancestor: made anew with other content. stale: the place that is named. again: the stage that is to be run."""

    stage: str
    ancestor: str
    stale: str
    again: str


CASES = [
    Swapped("validate documents", "tokenizer", "data/documents", "ingest"),
    Swapped("encode", "tokenizer", "data/documents", "ingest"),
    Swapped("encode", "documents", "reports/validate/documents.json", "validate documents"),
    Swapped("validate latents", "autoencoder", "data/latents", "encode"),
    Swapped("train", "tokenizer", "artifacts/autoencoder", "autoencoder"),
    Swapped("train", "autoencoder", "data/latents", "encode"),
    Swapped("train", "latents", "reports/validate/latents.json", "validate latents"),
    Swapped("evaluate", "tokenizer", "data/documents", "ingest"),
    Swapped("evaluate", "documents", "reports/validate/documents.json", "validate documents"),
    Swapped("evaluate", "documents verdict", "data/latents", "encode"),
    Swapped("evaluate", "autoencoder", "data/latents", "encode"),
    Swapped("evaluate", "latents", "reports/validate/latents.json", "validate latents"),
    Swapped("evaluate", "latents verdict", "artifacts/train", "train"),
    Swapped("export", "tokenizer", "artifacts/autoencoder", "autoencoder"),
    Swapped("export", "autoencoder", "artifacts/train", "train"),
    Swapped("export", "train", "reports/evaluate", "evaluate"),
    Swapped("register", "train", "reports/evaluate", "evaluate"),
    Swapped("register", "evaluation", "artifacts/bundle", "export"),
]


def stage(name: str) -> Callable[[Params], object]:
    stages: dict[str, Callable[[Params], object]] = {
        "validate documents": lambda params: validate.main(params, "documents"),
        "validate latents": lambda params: validate.main(params, "latents"),
        "autoencoder": autoencoder.main,
        "encode": encode.main,
        "train": train.main,
        "evaluate": evaluate.main,
        "export": export.main,
        "register": register.main,
        "infer": infer.main,
    }
    return stages[name]


def make(kind: str, content: str) -> None:
    """One artefact from those that stand there; whatever was made from the one before stays as it is."""
    inputs = MADE_FROM[kind]
    ancestors = ancestry.given(*inputs).ancestors if inputs else {}
    gate, _, is_verdict = kind.partition(" ")
    if is_verdict:
        quarantine = paths.QUARANTINE / f"{gate}.jsonl"
        write_text(quarantine, json.dumps({"key": content, "reason": "none"}) + "\n")
        write_json(paths.REPORTS / f"validate/{gate}.json", validation_facts(gate, quarantine, ancestors))
    elif kind == "train":
        write_bytes(paths.TRAIN / "model.safetensors", content.encode())
        write_json(paths.TRAIN / "run.json", {"run_id": content})
        write_manifest(paths.TRAIN, kind=kind, ancestors=ancestors, incidental=["run.json"])
    elif kind == "evaluation":
        write_json(paths.EVALUATION / "metrics.json", {content: 1.0})
        write_manifest(paths.EVALUATION, kind=kind, names=["metrics.json"], ancestors=ancestors)
    elif kind == "bundle":
        make_bundle(content, ancestors)
    else:
        write_bytes(ancestry.FOLDERS[kind] / "content.bin", content.encode())
        preparation = {"side_px": 16, "background": "black", "animated": "first_frame"}
        write_manifest(ancestry.FOLDERS[kind], kind=kind, ancestors=ancestors, preparation=preparation)


def make_bundle(content: str, ancestors: dict[str, str]) -> None:
    graph = onnx.helper.make_model(onnx.helper.make_graph([], content, [], [])).SerializeToString()
    for name in REQUIRED:
        write_bytes(paths.BUNDLE / name, graph if name.endswith(".onnx") else content.encode())
    images = image_modality(channels=4, patch_side=2, patch_layers="linear", unet_channels=(), begin_token_id=3, end_token_id=4)
    config = model_config(
        "tiny",
        vocab_size=300,
        modalities=(images,),
        prediction_type="flow",
        max_position_embeddings=64,
        special_ids=SPECIAL_IDS,
    )
    write_json(paths.BUNDLE / "config.json", config.to_dict())
    generation = GenerationConfig(
        image_side_px=16,
        image_background="black",
        image_animated="first_frame",
        latent_side=8,
        latent_channels=4,
        max_length=64,
        opset=24,
        guidance_scale=3.5,
        num_solver_steps=4,
        solver="euler",
        max_new_tokens=8,
    )
    write_generation_config(paths.BUNDLE, generation)
    write_json(paths.PARITY, {"graphs": {}, "of": content})
    write_manifest(paths.BUNDLE, kind=KIND, parity_sha256=sha256(paths.PARITY), ancestors=ancestors)


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """In a folder where every artefact was made from those before it."""
    loaded = load(ROOT / "params.yaml")
    monkeypatch.chdir(tmp_path)
    for kind in MADE_FROM:
        make(kind, "one")
    write_text(paths.REQUESTS / "requests.jsonl", json.dumps({"id": "a", "task": "text", "prompt": "b"}))
    return loaded


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.stage}, {case.ancestor}")
def test_another_ancestor_is_refused(case: Swapped, params: Params) -> None:
    make(case.ancestor, "two")
    with pytest.raises(BadInput, match=f"^{case.stale} was made from .*; run {case.again} again"):
        stage(case.stage)(params)


@pytest.mark.parametrize("name", ["encode", "evaluate"])
def test_a_quarantine_of_another_run_of_the_gate_is_refused(name: str, params: Params) -> None:
    (paths.QUARANTINE / "documents.jsonl").write_text("")
    refusal = r"^data/quarantine/documents\.jsonl was not written with reports/validate/documents\.json; run validate documents"
    with pytest.raises(BadInput, match=refusal):
        stage(name)(params)


def test_training_refuses_a_quarantine_of_another_run_of_the_gate(params: Params) -> None:
    (paths.QUARANTINE / "latents.jsonl").write_text("")
    with pytest.raises(BadInput, match=r"^data/quarantine/latents\.jsonl was not written with .*; run validate latents again"):
        train.main(params)


@pytest.mark.parametrize("name", ["export", "register"])
def test_metrics_of_another_model_are_refused(name: str, params: Params) -> None:
    write_json(paths.EVALUATION / "metrics.json", {"text_to_image/objects_right": 1.0})
    with pytest.raises(BadInput, match=r"^reports/evaluate/metrics\.json does not have the bytes its manifest lists"):
        stage(name)(params)


def test_an_evaluation_from_before_it_said_how_pictures_were_generated_is_refused(params: Params) -> None:
    with pytest.raises(BadInput, match=r"^reports/evaluate does not say how its pictures were generated; run `dvc repro`"):
        export.main(params)


@pytest.mark.parametrize("name", ["register", "infer"])
def test_the_parity_of_another_bundle_is_refused(name: str, params: Params) -> None:
    write_json(paths.PARITY, {"graphs": {}, "of": "another"})
    with pytest.raises(BadInput, match=r"^reports/export/parity\.json was not written with artifacts/bundle; run export again"):
        stage(name)(params)


def test_register_refuses_the_run_of_another_training(params: Params) -> None:
    write_json(paths.TRAIN / "run.json", {"run_id": "another"})
    with pytest.raises(BadInput, match=r"run\.json does not have the bytes"):
        register.main(params)


@pytest.mark.parametrize("kind", list(MADE_FROM))
def test_what_was_made_in_order_belongs_together(kind: str, params: Params) -> None:
    """Also after an artefact, and what follows it, was made anew."""
    following = list(MADE_FROM)[list(MADE_FROM).index(kind) :]
    for name in following:
        make(name, "two")
    everything = [name for name in MADE_FROM if name != "bundle"]
    bundle = json.loads((paths.BUNDLE / "manifest.json").read_text())
    assert set(ancestry.given(*everything, bundle=bundle).ancestors) == set(MADE_FROM)


def test_the_same_weights_of_another_run_change_nothing(params: Params) -> None:
    """Ids of runs and times are no content."""
    before = ancestry.given("train").ancestors
    write_json(paths.TRAIN / "run.json", {"run_id": "another"})
    inputs = ancestry.given(*MADE_FROM["train"]).ancestors
    write_manifest(paths.TRAIN, kind="train", ancestors=inputs, incidental=["run.json"])
    assert ancestry.given("train", "evaluation").ancestors.items() >= before.items()
