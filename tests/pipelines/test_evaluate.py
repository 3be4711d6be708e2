"""The evaluate stage runs from artefacts to report, on the demonstration's kind of corpus and on a user's own.

The model is random and tiny, so that its figures say nothing; that the right ones are there, and finite, is the point.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from components.data.config import ScenesConfig, SplitShares
from components.data.demonstration.scenes import kept_out_pairs, make_scenes
from components.data.documents import (
    SPLITS,
    Document,
    ImageSegment,
    TextSegment,
    document_parts,
    read_part,
    write_documents,
)
from components.data.encode.latents import EncodeSettings, encode_part
from components.data.quarantine import validation_facts
from components.data.shards import shard_path, write_shard
from components.evaluation.config import RetrievalConfig
from components.evaluation.kept_items import read_items
from components.evaluation.metrics import HEADLINE, METRICS, table
from components.evaluation.scenes.prompts import seen_prompts
from components.runtime.recording import open_run, recorded
from components.runtime.tracking_store import client_of, tracking_uri
from core.files import read_json, write_json, write_text
from core.manifest import read_manifest, write_manifest
from core.metric_keys import GENERATED_FOR, standard_error_key
from core.png import decode_png, encode_png
from core.tokenizer import train_tokenizer
from model.config import image_modality, model_config
from model.generation.requests import SamplingOptions
from model.latents.autoencoder import Autoencoder
from model.transfusion import Transfusion
from pipelines import evaluate, paths, report
from pipelines.compare import compare
from pipelines.params import load
from pipelines.sections import Params

REPOSITORY = Path(__file__).parents[2]
KEPT_OUT = kept_out_pairs(3, 5)
# Figures with an interval and without a standard error.
SAMPLED = ("distribution/", "memorisation/", "guidance/")
# Figures of others' networks, that the parameters name none of.
OF_GIVEN_WEIGHTS = ("fid/", "clip/")
PROSE = "A class is made by a class statement. Its body runs once, in a new namespace number {}. "


@pytest.fixture
def params(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """The repository's parameters at the smallest size, in a working directory with an empty tracking store."""
    shutil.copy(empty_database, tmp_path)
    full = load(REPOSITORY / paths.PARAMS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    small = dataclasses.replace(
        full.evaluate,
        num_seen_scenes=8,
        num_kept_out_scenes=4,
        num_captions=12,
        num_loss_images=6,
        num_solver_steps=2,
        loss_times=(0.3, 0.7),
        x_0_error_times=(0.5, 0.98),
        retrieval=RetrievalConfig(group_size=2, num_groups=2, noise_levels=(0.5,)),
        num_pictures=12,
        num_training_pictures=20,
        memorisation=dataclasses.replace(full.evaluate.memorisation, held_out_share=0.25),
        guidance_sweep=dataclasses.replace(full.evaluate.guidance_sweep, scales=(1.0, 4.0), num_prompts=8),
        digit_classifier=dataclasses.replace(full.evaluate.digit_classifier, max_steps=4),
    )
    return dataclasses.replace(full, evaluate=small)


def scenes() -> list[Document]:
    config = ScenesConfig(num_train=20, num_validation=4, num_test=12, num_kept_out_pairs=3)
    shares = SplitShares(validation=0.1, test=0.2)
    return list(make_scenes(config, shares, seed=5, caption_first_share=0.8, source="scenes"))


def prose() -> list[Document]:
    return [
        Document(key=f"{split}{i}", source="prose", split=split, segments=(TextSegment(PROSE.format(i) * 3),))
        for split in SPLITS
        for i in range(4)
    ]


def holidays() -> list[Document]:
    """A user's own captioned pictures."""
    rng = np.random.default_rng(1)
    images = [ImageSegment(encode_png(rng.integers(0, 256, (32, 32, 3), np.uint8))) for _ in range(12)]
    return [
        Document(key=str(i), source="holidays", split=SPLITS[i % 3], segments=(TextSegment(f"a beach, number {i}"), image))
        for i, image in enumerate(images)
    ]


def write_world(documents: Sequence[Document]) -> str:
    """Everything the stage reads, made by the parts that make it in earnest; returns the MLflow run's id."""
    torch.manual_seed(1)
    by_split = {split: [document for document in documents if document.split == split] for split in SPLITS}
    for split, members in by_split.items():
        write_documents(paths.DOCUMENTS, split, members, 8)
    preparation = {"side_px": 32, "background": "black", "animated": "first_frame"}
    write_manifest(paths.DOCUMENTS, kind="documents", kept_out_pairs=[list(pair) for pair in KEPT_OUT], preparation=preparation)
    tokenizer = train_tokenizer((text for document in by_split["train"] for text in document.texts), 300)
    tokenizer.save(paths.TOKENIZER)
    shape = {"layers_per_block": 1, "latent_channels": 4, "norm_groups": 4, "sample_side_px": 32}
    autoencoder = Autoencoder.create(block_channels=(4, 4, 4), **shape).eval()
    autoencoder.save_pretrained(paths.AUTOENCODER)
    write_manifest(paths.AUTOENCODER, kind="autoencoder")
    settings = EncodeSettings(batch_size=8, row_length=96, patch_side=2, image_side_px=32)
    for split in SPLITS:
        for number, part in enumerate(document_parts(paths.DOCUMENTS, split)):
            encoded = encode_part(read_part(part), tokenizer, autoencoder, settings, device=torch.device("cpu"))
            write_shard(shard_path(paths.LATENTS, split, number), encoded.shard)
    write_manifest(paths.LATENTS, kind="latents")
    for gate in ("documents", "latents"):
        quarantine = paths.QUARANTINE / f"{gate}.jsonl"
        write_text(quarantine, "")
        write_json(paths.REPORTS / "validate" / f"{gate}.json", validation_facts(gate, quarantine, {}))
    markers = {"begin_token_id": tokenizer.special_ids["boi"], "end_token_id": tokenizer.special_ids["eoi"]}
    images = image_modality(channels=4, patch_side=2, patch_layers="linear", unet_channels=(), **markers)
    config = model_config(
        "tiny",
        vocab_size=tokenizer.vocab_size,
        modalities=(images,),
        prediction_type="flow",
        max_position_embeddings=160,
        special_ids=tokenizer.special_ids,
    )
    Transfusion(config).save_pretrained(paths.TRAIN)
    identity = open_run("train")
    run_id = identity.run_id
    with recorded(identity):
        pass
    write_json(paths.TRAIN / "run.json", {"run_id": run_id, "name": "demo flow"})
    write_text(paths.TRAIN / "history.csv", "step,image\n5,2.5\n10,1.5\n")
    # Of another training.
    write_text(paths.REPORTS / "train/history.csv", "step,image\n5,9.5\n10,8.5\n")
    write_manifest(paths.TRAIN, kind="train", step=7, incidental=["run.json"])
    return run_id


def page_of(params: Params) -> str:
    """The page of the whole run, as far as it has come."""
    shutil.copy(REPOSITORY / report.PIPELINE, report.PIPELINE)
    report.main(params)
    return report.REPORT.read_text()


def evaluations(run_id: str) -> list[Any]:
    """The runs of evaluations below a training's, the oldest first."""
    client = client_of(tracking_uri())
    experiment = client.get_run(run_id).info.experiment_id
    return client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run_id}'", order_by=["attributes.start_time"])


def test_the_demonstration_gets_every_figure(params: Params, capsys: pytest.CaptureFixture[str]) -> None:
    run_id = write_world([*scenes(), *prose()])
    evaluate.main(params)
    metrics = read_json(evaluate.REPORT / "metrics.json")
    figures = table(metrics)
    own = [metric for key, metric in METRICS.items() if not key.startswith(OF_GIVEN_WEIGHTS)]
    assert list(dict.fromkeys(figure.metric for figure in figures)) == own
    assert {key for key in metrics if key.startswith(SAMPLED)} <= set(read_json(evaluate.REPORT / "intervals.json"))
    errors = {standard_error_key(figure.key) for figure in figures if figure.standard_error is not None}
    assert set(metrics) == {figure.key for figure in figures} | errors
    shares = ("_right", "_kept_out", "right_new_prompts", "right_new_captions", "_readable", "_on_real", "_on_reconstructed")
    assert errors == {standard_error_key(key) for key in metrics if key.endswith(shares) and not key.startswith(SAMPLED)}
    assert all(math.isfinite(value) for value in metrics.values())
    short = read_json(evaluate.REPORT / "headline.json")
    assert short == {name: metrics[key] for name, key in HEADLINE.items()}
    (run,) = evaluations(run_id)
    assert (run.info.run_name, run.info.status) == ("evaluation of demo flow (guidance 4, 2 steps)", "FINISHED")
    assert run.info.end_time - run.info.start_time > 0
    found = run.data.metrics
    levels = {f"by noise/{name}" for name in ("x0_error", "wrong_caption_x0_gap")}
    scores = ("objects_right", "frechet", "kid", "precision", "recall", "density", "coverage")
    scales = {f"by guidance/{name}" for name in scores}
    assert set(found) == {*HEADLINE.values()} | levels | scales
    assert all(found[key] == metrics[key] for key in HEADLINE.values())
    client = client_of(tracking_uri())
    curve = client.get_metric_history(run.info.run_id, "by noise/x0_error")
    assert [(each.step, each.value) for each in curve] == [
        (50, metrics["image/x0_error/0.5"]),
        (98, metrics["image/x0_error/0.98"]),
    ]
    curve = client.get_metric_history(run.info.run_id, "by guidance/kid")
    assert [(each.step, each.value) for each in curve] == [(100, metrics["guidance/kid/1"]), (400, metrics["guidance/kid/4"])]
    assert {each.step for key in HEADLINE.values() for each in client.get_metric_history(run.info.run_id, key)} == {0}, (
        "a bar, no point"
    )
    rows = read_json(Path(client.download_artifacts(run.info.run_id, "figures.json")))["data"]
    assert {row[0]: row[1] for row in rows} == {figure.key: figure.value for figure in figures}
    assert [item.path for item in client.list_artifacts(run.info.run_id, "evaluate")]
    assert any(".png" in item.path for item in client.list_artifacts(run.info.run_id, "images"))
    assert (evaluate.REPORT / "samples.png").read_bytes().startswith(b"\x89PNG")
    assert [row["time"] for row in read_json(evaluate.REPORT / "diffusion.json")] == [0.3, 0.7]
    shown = read_json(evaluate.REPORT / "shown.json")
    assert shown["notes"] == [
        "evaluate.weights.inception is empty: FID is not run",
        "evaluate.weights.clip is empty: the CLIP score is not run",
    ]
    assert all(shown[name] for name in ("generated", "captions", "nearest_training"))
    captions = read_json(Path(client.download_artifacts(run.info.run_id, "captions.json")))["data"]
    assert [row[2] for row in captions] == [entry["sampled"] for entry in shown["captions"]]
    assert 'aria-label="Composition, with 95% intervals"' in page_of(params)
    everything = {"tokenizer", "documents", "autoencoder", "latents", "train", "documents verdict", "latents verdict"}
    manifest, config = read_manifest(evaluate.REPORT, kind="evaluation"), params.evaluate
    assert set(manifest["ancestors"]) == everything
    sampling = SamplingOptions(**manifest["sampling"])
    assert (sampling.guidance_scale, sampling.num_steps) == (config.guidance_scale, config.num_solver_steps)
    assert sampling.solver == "euler"
    assert manifest["facts"]["distribution"]["num_generated_and_held_out_pictures"] == 12
    assert manifest["facts"]["guidance"] == {"scale_used": 4.0, "num_prompts_of_a_scale": 8}
    compare([run.info.run_id, "workspace"], "none", Path("beside.html"))
    assert "No figure differs." in capsys.readouterr().out
    assert Path("beside.html").read_text().count("data:image/png;base64,") == 2 * 12, "of the run, and of the project"
    kept = read_items(paths.EVALUATION_ITEMS)
    comparable = {figure.key for figure in figures if figure.metric.compares}
    of_the_data = (
        "text_to_image/judge_on_real",
        "text_to_image/judge_scenes_on_real",
        "composition_on_real/",
        "retrieval/chance",
    )
    assert {key for key in kept.items if not key.startswith(of_the_data)} == comparable
    names = {name.removeprefix(GENERATED_FOR) for each in kept.items.values() for name in each.names}
    assert {name for name in names if name not in kept.held_out and not name.startswith("prompt ")} == set()
    assert [picture.prompt for picture in kept.pictures[:8]] == [
        prompt.text for prompt in seen_prompts(8, KEPT_OUT, config.seed)
    ]
    assert {decode_png(picture.png).shape for picture in kept.pictures} == {(32, 32, 3)} and len(kept.pictures) == 12


def _tracked_bytes() -> dict[str, bytes]:
    """Of all files that DVC tracks."""
    return {path.name: path.read_bytes() for path in evaluate.REPORT.iterdir()}


def test_the_same_model_gets_the_same_figures_and_each_evaluation_a_run_of_its_own(params: Params) -> None:
    run_id = write_world([*scenes(), *prose()])
    client = client_of(tracking_uri())
    before = client.get_run(run_id)
    evaluate.main(params)
    first = _tracked_bytes()
    again = dataclasses.replace(params, evaluate=dataclasses.replace(params.evaluate, guidance_scale=2.0))
    evaluate.main(again)
    evaluate.main(params)
    assert _tracked_bytes() == first
    runs = evaluations(run_id)
    assert [run.data.params["evaluate.guidance_scale"] for run in runs] == ["4.0", "2.0", "4.0"]
    assert runs[0].data.metrics == runs[2].data.metrics
    after = client.get_run(run_id)
    assert (after.info.end_time, after.data.to_dictionary()) == (before.info.end_time, before.data.to_dictionary())


def test_a_users_own_corpora_get_what_applies_and_are_told_the_rest(params: Params, capsys: pytest.CaptureFixture[str]) -> None:
    write_world([*holidays(), *prose()])
    evaluate.main(params)
    metrics = read_json(evaluate.REPORT / "metrics.json")
    text = {key for key in METRICS if key.startswith("text/")}
    levels = {f"{key}/{level}" for key in ("image/x0_error", "conditioning/wrong_caption_x0_gap") for level in (0.5, 0.98)}
    losses = {"image/diffusion_loss", "image/x0_error_of_mean", "conditioning/wrong_caption_gap"}
    captions = {f"captions/{kind}{score}" for kind in ("", "sampled/") for score in ("bleu4", "rouge_l", "exact")}
    retrieval = {f"retrieval/{name}" for name in ("caption_at_1", "image_at_1", "chance")}
    assert set(metrics) == text | losses | levels | captions | retrieval | {"memorisation/flagged_share"}
    # Beside a share's resamples; of one number alone, a compressor's, there is no interval.
    assert set(read_json(evaluate.REPORT / "intervals.json")) >= {
        "text/bits_per_byte",
        *losses - {"image/x0_error_of_mean"},
        *levels,
        *retrieval,
    }
    page = page_of(params)
    assert "The corpora hold no digit scenes" in page and 'id="composition"' in page
    assert "as GenEval cuts it" not in page and 'id="guidance"' not in page
    assert "4 pictures with captions are fewer than 10" in page
    assert "Distances between pictures need 6 held-out and as many training pictures, and 4 and 4 were read" in page
    assert "a beach, number" in page
    assert "no digit scenes" in capsys.readouterr().out


def test_corpora_of_one_kind_are_enough(params: Params) -> None:
    write_world(prose())
    evaluate.main(params)
    assert set(read_json(evaluate.REPORT / "metrics.json")) == {key for key in METRICS if key.startswith("text/")}
    assert (evaluate.REPORT / "samples.png").is_file()
