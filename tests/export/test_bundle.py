"""A bundle is whole and unchanged, or it is not opened."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from components.runtime.files import write_manifest
from export.build import Sources, build_bundle, generation_config
from export.bundle import CARD, DECODER_GRAPH, STEP_GRAPH, bundle_digest, open_bundle, verify
from export.failure import ExportRefused
from export.predictor import Predictor
from tests.export.conftest import CONFIG, Made


def test_layout(made: Made) -> None:
    listed = set(made.bundle.manifest["files"])
    wanted = {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "generation_config.json",
        STEP_GRAPH,
        CARD,
        DECODER_GRAPH,
    }
    assert wanted <= listed
    assert {"autoencoder/config.json", "autoencoder/diffusion_pytorch_model.safetensors"} <= listed
    assert made.bundle.generation.image_shape == (8, 8)
    assert made.bundle.config == made.model.config


@pytest.mark.parametrize("name", [STEP_GRAPH, f"{STEP_GRAPH}.data", "model.safetensors", "config.json", CARD])
def test_one_flipped_byte_is_refused(copied: Path, name: str) -> None:
    data = bytearray((copied / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copied / name).write_bytes(data)
    with pytest.raises(ExportRefused, match=f"{name} does not have the bytes"):
        Predictor.open(copied)


def test_a_missing_or_foreign_file_is_refused(copied: Path) -> None:
    (copied / "tokenizer.json").unlink()
    with pytest.raises(ExportRefused, match=r"tokenizer\.json is listed in the manifest but missing"):
        open_bundle(copied)
    with pytest.raises(ExportRefused, match=r"manifest\.json is missing"):
        open_bundle(copied.parent)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/../../outside"])
def test_a_manifest_cannot_lead_outside(copied: Path, name: str) -> None:
    (copied.parent / "outside").write_text("x")
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["files"][name] = manifest["files"]["config.json"]
    (copied / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ExportRefused, match="outside the bundle"):
        verify(copied)


def test_a_manifest_must_list_what_is_used(copied: Path) -> None:
    (copied / f"{STEP_GRAPH}.data").rename(copied.parent / "weights")
    write_manifest(copied, kind="bundle")
    with pytest.raises(ExportRefused, match=r"does not list step\.onnx\.data"):
        verify(copied)


def test_digest_follows_the_bytes(made: Made, copied: Path) -> None:
    before = bundle_digest(made.bundle.manifest)
    assert bundle_digest(verify(copied)) == before
    (copied / CARD).write_text("another")
    write_manifest(copied, kind="bundle")
    assert bundle_digest(verify(copied)) != before


def test_card_has_front_matter_and_figures(made: Made) -> None:
    from ruamel.yaml import YAML

    text = (made.bundle.folder / CARD).read_text()
    front = YAML(typ="safe").load(text.split("---\n")[1])
    assert front["library_name"] == "transfusion-pipeline"
    metrics = front["model-index"][0]["results"][0]["metrics"]
    assert {"type": "text_to_image/objects_right", "value": 0.97} in metrics
    assert "| text_to_image/objects_right | 0.97 |" in text
    assert "| step.onnx |" in text


def test_a_configuration_of_another_form_is_refused(copied: Path) -> None:
    """Such as bundles held before models had modalities: whole, and not of this code."""
    config = json.loads((copied / "config.json").read_text())
    config["patch_side"] = config.pop("modalities")[0]["patch"][0]
    (copied / "config.json").write_text(json.dumps(config))
    write_manifest(copied, kind="bundle")
    with pytest.raises(ExportRefused, match=r"config\.json: not a model's configuration.*export the bundle again"):
        open_bundle(copied)


def test_positions_of_an_image_follow_its_patch(made: Made) -> None:
    for patch, wanted in (((1, 1), 64), ((2, 4), 8), ((8, 8), 1)):
        assert made.bundle.generation.num_patches(dataclasses.replace(made.model.config.image, patch=patch)) == wanted


def test_a_model_without_images_first_is_refused(made: Made) -> None:
    sound = dataclasses.replace(made.model.config.image, name="sound", patch=(4,))
    for modalities, names in (((), "none"), ((sound, made.model.config.image), "sound, image")):
        config = dataclasses.replace(made.model.config, modalities=modalities)
        with pytest.raises(ExportRefused, match=f"images as the model's first modality.*it has: {names}"):
            generation_config(config, made.autoencoder, 16, 24)


def test_parts_that_do_not_fit_are_refused(made: Made, tmp_path: Path) -> None:
    with pytest.raises(ExportRefused, match="do not cut into patches"):
        build_bundle(Sources(*made.sources), tmp_path, CONFIG, image_side_px=18, metrics={})
    with pytest.raises(ExportRefused, match="positions"):
        build_bundle(Sources(*made.sources), tmp_path, CONFIG, image_side_px=64, metrics={})
