"""export, register and infer in a row, in a folder of their own, on a tiny model with random weights."""

from __future__ import annotations

import dataclasses
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from components.data.tokenizer import train_tokenizer
from components.runtime.cluster import start_ray
from components.runtime.failure import BadInput, GateRefused
from components.runtime.files import read_json, read_manifest, write_json, write_manifest
from components.runtime.tracking import open_run, set_alias, tracking_uri, version_of
from model.config import image_modality, model_config
from model.latents.autoencoder import Autoencoder
from model.transfusion import Transfusion
from pipelines import export, infer, register
from pipelines.params import Params, load

ROOT = Path(__file__).resolve().parents[2]
SIDE_PX = 16
METRICS = {"text_to_image/objects_right": 0.95, "image_to_text/objects_right": 0.93}
REQUESTS = [
    {"id": "a", "task": "text_to_image", "prompt": "a red three top left"},
    {"id": "b", "task": "image_to_text", "image": "images/b.png"},
    {"id": "c", "task": "text", "prompt": "a blue"},
    "{cut off",
    {"id": "d", "task": "text_to_image", "prompt": "<|boi|><|eos|> a blue seven"},
    {"id": "e", "task": "image_to_text", "image": "images/missing.png"},
    {"id": "f", "task": "text", "prompt": "word " * 200},
    {"id": "a", "task": "text", "prompt": "the same id"},
    {"id": "g", "task": "text_to_image", "prompt": "a green one bottom right"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory with what training and evaluation leave behind."""
    root, before = tmp_path_factory.mktemp("stages"), Path.cwd()
    tracking_before = os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.chdir(root)
    tokenizer = train_tokenizer(["a red three top left", "a blue seven bottom right", "a green one"] * 4, 300)
    for name in ("data/tokenizer", "data/requests/images", "artifacts/train"):
        Path(name).mkdir(parents=True)
    tokenizer.save(Path("data/tokenizer"))
    ids = tokenizer.special_ids
    markers = {"begin_id": ids["boi"], "end_id": ids["eoi"]}
    images = image_modality(channels=4, patch_side=2, codec="linear", unet_channels=(), **markers)
    sizes = {"vocab_size": 300, "modalities": (images,), "objective": "flow", "max_length": 128}
    Transfusion(model_config("tiny", **sizes, special_ids=ids)).save_pretrained(Path("artifacts/train"))
    write_json(Path("artifacts/train/run.json"), {"run_id": open_run("train").run_id})
    write_manifest(Path("artifacts/train"), kind="train", step=1)
    channels = {"block_channels": (8, 8), "layers_per_block": 1, "latent_channels": 4, "norm_groups": 4}
    Autoencoder.create(**channels, sample_side_px=SIDE_PX).save_pretrained(Path("artifacts/autoencoder"))
    write_manifest(Path("artifacts/autoencoder"), kind="autoencoder")
    write_json(Path("reports/evaluate/metrics.json"), METRICS)
    Image.fromarray(np.zeros((SIDE_PX, SIDE_PX, 3), np.uint8)).save("data/requests/images/b.png")
    lines = [line if isinstance(line, str) else json.dumps(line) for line in REQUESTS]
    Path("data/requests/requests.jsonl").write_text("\n".join(lines))
    yield root
    os.chdir(before)
    if tracking_before is not None:
        os.environ["MLFLOW_TRACKING_URI"] = tracking_before


@pytest.fixture(scope="module")
def params() -> Params:
    loaded = load(ROOT / "params.yaml", ["infer.num_solver_steps=2", "infer.max_new_tokens=4", "infer.batch_size=2"])
    return dataclasses.replace(loaded, ingest=dataclasses.replace(loaded.ingest, image_side_px=SIDE_PX))


@pytest.fixture(scope="module")
def exported(folder: Path, params: Params) -> Path:
    torch.manual_seed(17)
    export.main(params)
    return folder / "artifacts/bundle"


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One Ray for all that infer; the stage joins it."""
    with start_ray():
        yield


def test_export_writes_a_bundle_and_its_reports(exported: Path) -> None:
    read_manifest(exported, kind="bundle")
    graphs = read_json(Path("reports/export/parity.json"))["graphs"]
    assert all(0 < entry["largest_error"] <= entry["limit"] for entry in graphs.values())
    tensorrt = read_json(Path("reports/export/tensorrt.json"))
    assert tensorrt["built"] or tensorrt["why"].startswith("not built: ")


def test_a_graph_above_the_limit_stops_the_stage_and_keeps_the_report(exported: Path, params: Params) -> None:
    report, kept = Path("reports/export/parity.json"), (exported / "manifest.json").read_bytes()
    before = report.read_bytes()
    report.unlink()
    strict = dataclasses.replace(params, export=dataclasses.replace(params.export, max_transformer_error=1e-12))
    with pytest.raises(GateRefused, match=r"step\.onnx differs from eager torch by .*parity\.json"):
        export.main(strict)
    # Equal but for the limit: the report holds nothing of the run.
    assert report.read_text().replace("1e-12", "0.0001") == before.decode()
    report.write_bytes(before)
    assert (exported / "manifest.json").read_bytes() == kept


def test_register_gives_one_version_a_bundle_and_aliases_by_the_rule(exported: Path, params: Params) -> None:
    name, uri, report = params.register.name, tracking_uri(), Path("reports/register/version.json")
    register.main(params)
    first = read_json(report)
    assert first["aliases"] == ["challenger", "champion"]
    register.main(params)
    assert read_json(report)["version"] == first["version"]
    # A worse bundle is challenger alone; its digest differs because its card does.
    worse = METRICS | {"text_to_image/objects_right": 0.94}
    _republish(exported, worse)
    register.main(params)
    second = read_json(report)
    assert second["version"] != first["version"]
    assert second["aliases"] == ["challenger"]
    assert any("worse than the champion" in reason for reason in second["reasons"])
    champion, challenger = (version_of(uri, name, alias=alias) for alias in ("champion", "challenger"))
    assert champion is not None
    assert challenger is not None
    assert (champion.version, challenger.version) == (first["version"], second["version"])
    assert champion.run_id == read_json(Path("artifacts/train/run.json"))["run_id"]
    # Below a floor nothing becomes champion, even without another one.
    _republish(exported, METRICS | {"image_to_text/objects_right": 0.5})
    set_alias(uri, name, "champion", second["version"])
    register.main(params)
    assert read_json(report)["aliases"] == ["challenger"]


def test_the_registered_model_answers(exported: Path, params: Params) -> None:
    import mlflow
    import pandas as pd

    mlflow.set_tracking_uri(tracking_uri())
    model = mlflow.pyfunc.load_model(f"models:/{params.register.name}@challenger")
    assert model.metadata.signature is not None
    rows = [{"id": "1", "task": "text_to_image", "prompt": "a red three"}, {"id": "2", "task": "text", "prompt": ""}]
    answers = model.predict(pd.DataFrame(rows), params={"num_solver_steps": 2})
    assert Image.open(io.BytesIO(answers["image_png"][0])).size == (SIDE_PX, SIDE_PX)
    assert answers["error"][1] == "prompt is empty"


def test_infer_answers_the_good_and_sets_the_bad_aside(exported: Path, params: Params, cluster: None) -> None:
    infer.main(params)
    predictions = Path("artifacts/predictions")
    read_manifest(predictions, kind="predictions")
    results = [json.loads(line) for line in (predictions / "results.jsonl").read_text().splitlines()]
    assert [entry["id"] for entry in results] == ["a", "b", "c", "d", "g"]
    for entry in results:
        if entry["task"] == "text_to_image":
            assert Image.open(predictions / entry["generated_image"]).size == (SIDE_PX, SIDE_PX)
        else:
            assert isinstance(entry["generated_text"], str)
    aside = [json.loads(line) for line in (predictions / "quarantine.jsonl").read_text().splitlines()]
    assert [(entry["line"], entry["id"]) for entry in aside] == [(4, ""), (6, "e"), (7, "f"), (8, "a")]
    assert all(entry["reason"] for entry in aside)
    report = read_json(Path("reports/infer/throughput.json"))
    assert (report["requests"], report["requests_set_aside"], report["images"]) == (5, 4, 3)
    assert Image.open("reports/infer/predictions.png").width > 100
    assert not list(Path(".work/infer").iterdir())


def test_an_interrupted_infer_answers_only_what_is_left(
    exported: Path, params: Params, cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = (Path("artifacts/predictions") / "results.jsonl").read_bytes()
    given: list[int] = []
    start = infer.map_over_actors

    def interrupted(items, *rest):
        given.append(sum(len(item["lines"]) for item in items))
        for number, result in enumerate(start(items, *rest)):
            if len(given) == 1 and number == 2:
                raise KeyboardInterrupt
            yield result

    monkeypatch.setattr(infer, "map_over_actors", interrupted)
    with pytest.raises(KeyboardInterrupt):
        infer.main(params)
    assert (Path("artifacts/predictions") / "results.jsonl").read_bytes() == wanted
    infer.main(params)
    assert 0 < given[1] < given[0] == 7
    assert (Path("artifacts/predictions") / "results.jsonl").read_bytes() == wanted
    report = read_json(Path("reports/infer/throughput.json"))
    assert report["requests_taken_from_an_interrupted_run"] == given[0] - given[1]


def test_infer_refuses_before_any_work(exported: Path, params: Params) -> None:
    def infer_with(**changes: str) -> None:
        infer.main(dataclasses.replace(params, infer=dataclasses.replace(params.infer, **changes)))

    with pytest.raises(BadInput, match=r"infer\.requests"):
        infer_with(requests="data/requests/none.jsonl")
    Path("empty.jsonl").write_text("\n\n")
    with pytest.raises(BadInput, match="no usable request"):
        infer_with(requests="empty.jsonl")
    with pytest.raises(BadInput, match="TensorRT cannot run"):
        infer_with(engine="tensorrt")
    graph = exported / "step.onnx"
    data = graph.read_bytes()
    graph.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    try:
        with pytest.raises(BadInput, match=r"step.onnx does not have the bytes"):
            infer.main(params)
    finally:
        graph.write_bytes(data)


def _republish(bundle: Path, metrics: dict[str, float]) -> None:
    """The same bundle after another evaluation."""
    write_json(Path("reports/evaluate/metrics.json"), metrics)
    (bundle / "README.md").write_text(json.dumps(metrics))
    write_manifest(bundle, kind="bundle")
