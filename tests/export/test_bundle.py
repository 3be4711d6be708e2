"""A bundle is whole and unchanged, or it is not opened."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import torch

from core.errors import BadInput, GateRefused
from core.images import Preparation
from core.manifest import write_manifest
from export.ask import open_model
from export.builder.make_bundle import Sources, build_bundle, generation_config
from export.builder.model_card import model_card
from export.bundle import CARD, CODE, DECODER_GRAPH, ENCODER_GRAPH, STEP_GRAPH, bundle_digest, open_bundle, verify
from export.run.engines import open_engine
from export.run.predictor import Predictor
from tests.export.conftest import CONFIG, EVALUATED, PREPARATION, Made
from tests.pages.commands import blocks_of


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
    with pytest.raises(BadInput, match=f"{name} does not have the bytes"):
        Predictor.open(copied)


def test_a_missing_or_foreign_file_is_refused(copied: Path) -> None:
    (copied / "tokenizer.json").unlink()
    with pytest.raises(BadInput, match=r"tokenizer\.json is listed in the manifest but missing"):
        open_bundle(copied)
    with pytest.raises(BadInput, match=r"manifest\.json is missing"):
        open_bundle(copied.parent)


@pytest.mark.parametrize("location", ["unlisted.data", "../outside.data", "/etc/hostname"])
def test_a_graph_that_names_a_file_of_its_own_is_not_opened(copied: Path, location: str) -> None:
    """Though the manifest lists the graph with the right digest."""
    graph = onnx.load(str(copied / STEP_GRAPH), load_external_data=False)
    for tensor in graph.graph.initializer:
        for said in tensor.external_data:
            said.value = location if said.key == "location" else said.value
    (copied / STEP_GRAPH).write_bytes(graph.SerializeToString())
    weights = (copied / f"{STEP_GRAPH}.data").read_bytes()
    write_manifest(copied, kind="bundle")
    for name in ("unlisted.data", "../outside.data"):
        (copied / name).write_bytes(weights)
    with pytest.raises(BadInput, match=rf"names the file '{location}', which is not one of the bundle's"):
        Predictor.open(copied)


def test_weights_under_another_name_too_are_refused(copied: Path) -> None:
    os.link(copied / f"{STEP_GRAPH}.data", copied.parent / "another name")
    with pytest.raises(BadInput, match=r"step\.onnx\.data is a link"):
        open_bundle(copied)


SPOILT = {
    STEP_GRAPH: b"no graph",
    ENCODER_GRAPH: b"",
    DECODER_GRAPH: b"\x08\x0a" + b"\xff" * 40,
    "config.json": b"[1]",
    "generation_config.json": b'{"image_side_px": "16"}',
    "tokenizer.json": b"{}",
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_file_under_a_right_manifest_ends_in_one_sentence(copied: Path, name: str) -> None:
    (copied / name).write_bytes(SPOILT[name])
    write_manifest(copied, kind="bundle")
    with pytest.raises(BadInput, match=rf"{name}.*export the bundle again") as refused:
        Predictor.open(copied)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "other"), [(STEP_GRAPH, DECODER_GRAPH), (ENCODER_GRAPH, DECODER_GRAPH), (DECODER_GRAPH, ENCODER_GRAPH)]
)
def test_a_graph_in_another_s_place_is_refused(copied: Path, name: str, other: str) -> None:
    shutil.copyfile(copied / other, copied / name)
    write_manifest(copied, kind="bundle")
    with pytest.raises(BadInput, match=rf"{name} does not take and give what a bundle of this configuration does"):
        Predictor.open(copied)


def test_a_graph_that_no_runtime_takes_ends_in_one_sentence(copied: Path) -> None:
    """ONNX, and whole, with an operator that does not exist."""
    graph = onnx.load(str(copied / DECODER_GRAPH))
    graph.graph.node[3].op_type = "NoSuchOperator"
    (copied / DECODER_GRAPH).write_bytes(graph.SerializeToString())
    write_manifest(copied, kind="bundle")
    with pytest.raises(
        BadInput, match=r"vae_decoder\.onnx is no graph that ONNX Runtime can run \(.*NoSuchOperator"
    ) as refused:
        Predictor.open(copied)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("value", "field"), [(0, "latent_side"), (-8, "latent_side"), (True, "opset"), (None, "max_length"), (8.0, "latent_side")]
)
def test_sizes_of_generation_are_whole_numbers(copied: Path, value: object, field: str) -> None:
    sizes = json.loads((copied / "generation_config.json").read_text())
    (copied / "generation_config.json").write_text(json.dumps(sizes | {field: value}))
    write_manifest(copied, kind="bundle")
    with pytest.raises(BadInput, match=rf"{field}: {value} must be a whole number of at least 1"):
        open_bundle(copied)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_background": "red"}, "image_background: 'red' must be one of black, white"),
        ({"image_background": None}, "image_background: None must be one of black, white"),
        ({"image_animated": ["refuse"]}, r"image_animated: \['refuse'\] must be one of first_frame, refuse"),
        ({"image_sidepx": 16}, "lacks, or has too many: image_sidepx"),
        ({"guidance_scale": "4"}, "guidance_scale: '4' must be a number greater than 0"),
        ({"guidance_scale": 0}, "guidance_scale: 0 must be a number greater than 0"),
        ({"num_solver_steps": 10**6}, "num_solver_steps: 1000000 must be a whole number from 1 to 10000"),
        ({"max_new_tokens": 0}, "max_new_tokens: 0 must be a whole number"),
        ({"solver": "auto"}, "solver: 'auto' must be one of ddpm, ddim, dpmpp, unipc, euler, heun"),
        ({"solver": "ddim"}, "solver: 'ddim' does not go with prediction_type 'flow'; choose of auto, euler, heun"),
    ],
)
def test_what_a_bundle_says_of_pictures_is_checked(copied: Path, change: dict[str, object], said: str) -> None:
    values = json.loads((copied / "generation_config.json").read_text())
    (copied / "generation_config.json").write_text(json.dumps(values | change))
    write_manifest(copied, kind="bundle")
    with pytest.raises(BadInput, match=rf"{said}.*; export the bundle again"):
        Predictor.open(copied)


@pytest.mark.parametrize("unsaid", [("image_animated", "image_background"), ("guidance_scale", "num_solver_steps", "solver")])
def test_a_bundle_from_before_it_said_so_is_refused(copied: Path, unsaid: tuple[str, ...]) -> None:
    """How pictures are prepared, and how they were generated when the model was measured."""
    values = json.loads((copied / "generation_config.json").read_text())
    old = {name: value for name, value in values.items() if name not in unsaid}
    (copied / "generation_config.json").write_text(json.dumps(old))
    write_manifest(copied, kind="bundle")
    with pytest.raises(BadInput, match=f"lacks, or has too many: {', '.join(unsaid)}; export the bundle again"):
        open_bundle(copied)


def test_torch_refuses_spoilt_weights_in_one_sentence(copied: Path) -> None:
    weights = copied / "model.safetensors"
    whole = weights.read_bytes()
    for content in (whole[:-100], b"\xff" * 64, b""):
        weights.write_bytes(content)
        write_manifest(copied, kind="bundle")
        with pytest.raises(BadInput, match=r"the weights in .* do not load") as refused:
            open_engine(open_bundle(copied), "torch")
        assert "\n" not in str(refused.value)


def test_weights_that_are_no_numbers_are_not_exported(made: Made, tmp_path: Path) -> None:
    spoilt = copy.deepcopy(made.model)
    with torch.no_grad():
        next(iter(spoilt.parameters()))[0] = float("nan")
    spoilt.save_pretrained(tmp_path / "model")
    spoilt_sources = made.sources._replace(model=tmp_path / "model")
    (tmp_path / "bundle").mkdir()
    with pytest.raises(BadInput, match="hold numbers that are not finite"):
        build_bundle(spoilt_sources, tmp_path / "bundle", CONFIG, preparation=PREPARATION, evaluated=EVALUATED)
    (tmp_path / "model/model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(BadInput, match="do not load"):
        build_bundle(spoilt_sources, tmp_path / "bundle", CONFIG, preparation=PREPARATION, evaluated=EVALUATED)


def test_a_manifest_must_list_what_is_used(copied: Path) -> None:
    (copied / f"{STEP_GRAPH}.data").rename(copied.parent / "weights")
    write_manifest(copied, kind="bundle")
    with pytest.raises(BadInput, match=r"does not list step\.onnx\.data"):
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
    assert "| text_to_image/objects_right | 0.97 | 0.95 to 0.99 |" in text
    assert f"| documents | `{'d' * 64}` |\n| latents | `{'e' * 64}` |\n\n" in text
    headings = ["Intended use", "Data", "Use", "Limits", "ONNX against eager torch", "Figures"]
    assert [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")] == headings
    assert "| step.onnx |" in text and "a red three top left" in text


def test_card_shows_standard_errors_beside_their_figures(made: Made) -> None:
    metrics = {"a/right": 0.96123, "a/right_se": 0.00712, "a/right_new": 0.5, "b_se": 3.0}
    config, generation = made.model.config, made.bundle.generation
    began_with = {"name": "start", "sha256": "f" * 64}
    text = model_card("m", config, generation, num_parameters=1, parity={}, metrics=metrics, began_with=began_with)
    assert "\n| trained from the weights of | start (`ffffffffffff`) |\n" in text
    rows = [line for line in text.splitlines() if line.startswith(("| a", "| b"))]
    # Without figures of scenes it is a model of other corpora, to which digits say nothing.
    assert "a red three" not in text and '"a caption like those it was trained on"' in text
    assert rows == ["| a/right | 0.9612 +- 0.007 |  |", "| a/right_new | 0.5 |  |", "| b_se | 3 |  |"]
    assert "## Data" not in text, "nothing is known of it"


def test_what_the_card_says_to_type_draws_a_picture(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (lines,) = blocks_of((made.bundle.folder / CARD).read_text(), language="python")
    monkeypatch.chdir(tmp_path)
    # By its whole path: what this process has loaded of the archive, later tests take from there.
    exec(lines.replace('"code.pyz"', repr(str(made.bundle.folder / CODE))), {})
    assert Path("picture.png").read_bytes() == open_model(made.bundle.folder).ask("a red three top left").image_png


def test_a_configuration_of_another_form_is_refused(copied: Path) -> None:
    """Such as bundles held before models had modalities: whole, and not of this code."""
    config = json.loads((copied / "config.json").read_text())
    config["patch_side"] = config.pop("modalities")[0]["patch_size"][0]
    (copied / "config.json").write_text(json.dumps(config))
    write_manifest(copied, kind="bundle")
    with pytest.raises(BadInput, match=r"config\.json: not a model's configuration.*export the bundle again"):
        open_bundle(copied)


def test_positions_of_an_image_follow_its_patch(made: Made) -> None:
    for patch, wanted in (((1, 1), 64), ((2, 4), 8), ((8, 8), 1)):
        assert made.bundle.generation.num_patches(dataclasses.replace(made.model.config.image, patch_size=patch)) == wanted


def test_a_model_without_images_first_is_refused(made: Made) -> None:
    sound = dataclasses.replace(made.model.config.image, name="sound", patch_size=(4,))
    for modalities, names in (((), "none"), ((sound, made.model.config.image), "sound, image")):
        config = dataclasses.replace(made.model.config, modalities=modalities)
        with pytest.raises(GateRefused, match=f"images as the model's first modality.*it has: {names}"):
            generation_config(config, made.autoencoder, PREPARATION, EVALUATED.sampling, opset=24)


def _side(side_px: int) -> Preparation:
    return dataclasses.replace(PREPARATION, side_px=side_px)


def test_parts_that_do_not_fit_are_refused(made: Made, tmp_path: Path) -> None:
    with pytest.raises(GateRefused, match="do not cut into patches"):
        build_bundle(Sources(*made.sources), tmp_path, CONFIG, preparation=_side(18), evaluated=EVALUATED)
    with pytest.raises(GateRefused, match="positions"):
        build_bundle(Sources(*made.sources), tmp_path, CONFIG, preparation=_side(64), evaluated=EVALUATED)


ALONE = """
import sys
# An installed project has them all.
sys.modules.update(dict.fromkeys(("components", "pipelines", "export.builder", "mlflow", "ray", "dvc")))
from export.ask import open_model
open_model(sys.argv[1]).ask("a red").save("red.png")
"""


def test_a_bundle_answers_where_the_run_side_model_and_core_stand_alone(made: Made, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    (tmp_path / "export").mkdir()
    for path in (root / "model", root / "core", *(root / "export").iterdir()):
        if path != root / "export/builder":
            (tmp_path / path.relative_to(root)).symlink_to(path)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    line = [sys.executable, "-c", ALONE, str(made.bundle.folder)]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "red.png").read_bytes().startswith(b"\x89PNG")
