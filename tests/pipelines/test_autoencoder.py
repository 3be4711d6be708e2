"""The autoencoder stage publishes a usable folder, refuses a bad figure, and takes a given autoencoder as it is."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

from components.data.documents import Document, ImageSegment, write_documents
from core.errors import BadInput, GateRefused
from core.manifest import read_manifest, write_manifest
from core.png import encode_png
from model.latents.autoencoder import Autoencoder, QuantisedAutoencoder, to_pixels
from pipelines import autoencoder as stage_module
from pipelines.params import load
from pipelines.sections import Params
from tests.components.training.autoencoder.test_train import CONFIG, squares
from tests.pipelines.stage_process import REPOSITORY, finish, kill_when, start

ARTIFACT = Path("artifacts/autoencoder")
PREPARATION = {"side_px": 16, "background": "white", "animated": "first_frame"}


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRANSFUSION_NUM_WORKERS", raising=False)
    for split, seed in (("train", 1), ("test", 2)):
        images = enumerate(squares(24, seed).numpy())
        documents = [
            Document(key=str(index), source="made", segments=(ImageSegment(encode_png(image)),), split=split)
            for index, image in images
        ]
        write_documents(Path("data/documents"), split, documents, documents_per_file=10)
    write_manifest(Path("data/documents"), kind="documents", preparation=PREPARATION)
    return dataclasses.replace(load(REPOSITORY / "params.yaml"), autoencoder=dataclasses.replace(CONFIG, max_steps=10))


def test_it_trains_measures_and_publishes(params: Params) -> None:
    stage_module.main(params)
    manifest = read_manifest(ARTIFACT, kind="autoencoder")
    assert manifest["preparation"] == PREPARATION
    report = json.loads(Path("reports/autoencoder/metrics.json").read_text())
    assert manifest["psnr_db"] == report["psnr_db"] > 5
    assert set(manifest["ancestors"]) == {"documents"}
    assert (manifest["pixels_per_latent"], len(report["latent_mean"])) == (2, 4)
    assert Path("reports/autoencoder/reconstructions.png").stat().st_size > 0
    published = Autoencoder.from_pretrained(ARTIFACT)
    latents = published.encode(to_pixels(squares(24, 1)))
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(4), atol=1e-2, rtol=0)
    assert not list(Path(".work").glob("autoencoder/*"))


def test_the_quantised_twin_is_trained_by_the_same_stage(params: Params) -> None:
    another = Path(".work/autoencoder/another/run/step-00000500")
    another.mkdir(parents=True)
    quantised = dataclasses.replace(params.autoencoder, kind="vq", max_steps=20)
    stage_module.main(dataclasses.replace(params, autoencoder=quantised))
    assert another.is_dir() and len(list(Path(".work/autoencoder").iterdir())) == 1
    manifest = read_manifest(ARTIFACT, kind="autoencoder")
    assert (manifest["num_codes"], manifest["pixels_per_latent"]) == (64, 2)
    assert 1 <= manifest["code_perplexity"] <= manifest["num_codes_used"] <= 64
    published = Autoencoder.from_pretrained(ARTIFACT)
    assert isinstance(published, QuantisedAutoencoder)
    pixels = to_pixels(squares(4, 1))
    assert torch.equal(published.decode_codes(published.encode_codes(pixels)), published.decode(published.encode(pixels)))


SETTINGS = [
    "autoencoder.preset=tiny",
    "autoencoder.max_steps=80",
    "autoencoder.checkpoint_every_steps=10",
    "autoencoder.ema_decay=0.9",
    "autoencoder.min_psnr_db=1.0",
]


def test_a_killed_stage_goes_on_with_other_workers_to_the_same_end(params: Params, tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    stage_module.main(load(tmp_path / "params.yaml", SETTINGS))
    alone = Autoencoder.from_pretrained(ARTIFACT)
    alone_db = read_manifest(ARTIFACT, kind="autoencoder")["psnr_db"]
    shutil.rmtree(ARTIFACT)

    process = start("autoencoder", tmp_path, SETTINGS, num_workers=1)
    kill_when(process, lambda: any(Path(".work").glob("autoencoder/*/run/step-00000020/manifest.json")), timeout_s=240)
    assert not ARTIFACT.exists()

    output = finish(start("autoencoder", tmp_path, SETTINGS, num_workers=2))
    assert "resumed from step" in output
    assert "step 80/80 | loss" in output
    together = Autoencoder.from_pretrained(ARTIFACT)
    # Rounding of many steps, in bfloat16 where the machine has it, lie between the two.
    assert read_manifest(ARTIFACT, kind="autoencoder")["psnr_db"] == pytest.approx(alone_db, abs=1.0)
    assert together.latent_channels == alone.latent_channels
    assert not list(Path(".work").glob("autoencoder/*"))


def test_a_figure_below_the_floor_is_refused_and_nothing_is_published(params: Params) -> None:
    strict = dataclasses.replace(params.autoencoder, max_steps=1, min_psnr_db=60.0)
    with pytest.raises(GateRefused, match=r"min_psnr_db 60\.0: 1 steps were too few"):
        stage_module.main(dataclasses.replace(params, autoencoder=strict))
    assert not ARTIFACT.exists()
    assert Path("reports/autoencoder/reconstructions.png").exists()


def test_a_given_autoencoder_is_taken_as_it_is(params: Params, tmp_path: Path) -> None:
    torch.manual_seed(3)
    given = Autoencoder.create(
        block_channels=(4, 8, 8), layers_per_block=1, latent_channels=6, norm_groups=2, sample_side_px=16
    ).eval()
    given.set_normalisation(torch.full((6,), 0.5), torch.full((6,), 2.0))
    given.save_pretrained(tmp_path / "given")
    chosen = dataclasses.replace(params.autoencoder, pretrained=str(tmp_path / "given"))
    stage_module.main(dataclasses.replace(params, autoencoder=chosen))
    published = Autoencoder.from_pretrained(ARTIFACT)
    pixels = to_pixels(squares(3, 4))
    assert torch.equal(published.encode(pixels), given.encode(pixels))
    assert read_manifest(ARTIFACT, kind="autoencoder")["pixels_per_latent"] == 4


def given(folder: Path, num_levels: int = 2) -> Path:
    torch.manual_seed(4)
    channels = (4,) * num_levels
    Autoencoder.create(
        block_channels=channels, layers_per_block=1, latent_channels=4, norm_groups=2, sample_side_px=16
    ).save_pretrained(folder)
    return folder


def test_a_given_autoencoder_that_cannot_be_used_is_refused_in_a_sentence(params: Params, tmp_path: Path) -> None:
    config = json.loads((given(tmp_path / "other") / "config.json").read_text())
    (tmp_path / "other/config.json").write_text(json.dumps(config | {"_class_name": "AutoencoderTiny"}))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/config.json").write_text("[1, 2")
    for folder, expected in (
        (tmp_path / "other", "holds a AutoencoderTiny"),
        (tmp_path / "broken", "is no diffusers AutoencoderKL or VQModel"),
        (tmp_path / "nowhere", "is no diffusers AutoencoderKL or VQModel"),
        (given(tmp_path / "coarse", num_levels=6), "32 px, and images have 16"),
    ):
        chosen = dataclasses.replace(params.autoencoder, pretrained=str(folder))
        with pytest.raises(BadInput, match=rf"autoencoder\.pretrained.*{expected}"):
            stage_module.main(dataclasses.replace(params, autoencoder=chosen))
    assert not ARTIFACT.exists() and not Path(".work").exists()


def test_a_refused_figure_does_not_cost_the_training(params: Params, capfd: pytest.CaptureFixture[str]) -> None:
    strict = dataclasses.replace(params.autoencoder, min_psnr_db=60.0)
    with pytest.raises(GateRefused):
        stage_module.main(dataclasses.replace(params, autoencoder=strict))
    assert "step 10/10" in capfd.readouterr().out
    stage_module.main(params)
    assert "step 10/10" not in capfd.readouterr().out
    assert ARTIFACT.exists()
