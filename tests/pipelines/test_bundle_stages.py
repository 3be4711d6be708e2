"""export, register and infer in a row, in a folder of their own, on a tiny model with random weights."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from components.runtime.cluster import start_ray
from components.runtime.recording import open_run
from components.runtime.registry import set_alias, version_of
from components.runtime.tracking_store import tracking_uri
from core.errors import BadInput, GateRefused
from core.files import read_json, sha256, write_json
from core.manifest import read_manifest, write_manifest
from core.tokenizer import train_tokenizer
from export import ask
from export.ask import open_model
from export.builder import make_bundle
from export.builder.graphs import GraphSpec
from export.builder.to_onnx import ExportedGraph
from export.bundle import open_bundle
from export.run.batch import BatchActor
from model.config import image_modality, model_config
from model.latents.autoencoder import Autoencoder
from model.transfusion import Transfusion
from pipelines import export, infer, register, stage
from pipelines.ancestry import given
from pipelines.params import load
from pipelines.sections import Params

ROOT = Path(__file__).resolve().parents[2]
SIDE_PX = 16
METRICS = {"text_to_image/objects_right": 0.95, "image_to_text/objects_right": 0.93}
SAMPLING = {"guidance_scale": 3.5, "num_steps": 3, "solver": "euler"}
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
def folder(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Path]:
    """A working directory with what training and evaluation leave behind."""
    root, before = tmp_path_factory.mktemp("stages"), Path.cwd()
    tracking_before = os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.chdir(root)
    shutil.copy(empty_database, root)
    tokenizer = train_tokenizer(["a red three top left", "a blue seven bottom right", "a green one"] * 4, 300)
    for name in ("data/tokenizer", "data/requests/images", "artifacts/train"):
        Path(name).mkdir(parents=True)
    tokenizer.save(Path("data/tokenizer"))
    ids = tokenizer.special_ids
    markers = {"begin_token_id": ids["boi"], "end_token_id": ids["eoi"]}
    images = image_modality(channels=4, patch_side=2, patch_layers="linear", unet_channels=(), **markers)
    sizes = {"vocab_size": 300, "modalities": (images,), "prediction_type": "flow", "max_position_embeddings": 128}
    Transfusion(model_config("tiny", **sizes, special_ids=ids)).save_pretrained(Path("artifacts/train"))
    write_json(Path("artifacts/train/run.json"), {"run_id": open_run("train").run_id})
    write_manifest(Path("artifacts/train"), kind="train", step=1)
    channels = {"block_channels": (8, 8), "layers_per_block": 1, "latent_channels": 4, "norm_groups": 4}
    Autoencoder.create(**channels, sample_side_px=SIDE_PX).save_pretrained(Path("artifacts/autoencoder"))
    preparation = {"side_px": SIDE_PX, "background": "white", "animated": "first_frame"}
    write_manifest(Path("artifacts/autoencoder"), kind="autoencoder", preparation=preparation)
    _evaluated(METRICS)
    Image.fromarray(np.zeros((SIDE_PX, SIDE_PX, 3), np.uint8)).save("data/requests/images/b.png")
    lines = [line if isinstance(line, str) else json.dumps(line) for line in REQUESTS]
    Path("data/requests/requests.jsonl").write_text("\n".join(lines))
    yield root
    os.chdir(before)
    if tracking_before is not None:
        os.environ["MLFLOW_TRACKING_URI"] = tracking_before


@pytest.fixture(scope="module")
def params() -> Params:
    return load(ROOT / "params.yaml", ["infer.num_solver_steps=2", "infer.max_new_tokens=4", "infer.batch_size=2"])


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
    manifest = read_manifest(exported, kind="bundle")
    assert set(manifest["ancestors"]) == {"tokenizer", "autoencoder", "train", "evaluation"}
    generation = open_bundle(exported).generation
    assert (generation.image_side_px, generation.image_background) == (SIDE_PX, "white")
    assert (generation.guidance_scale, generation.num_solver_steps, generation.solver) == tuple(SAMPLING.values())
    graphs = read_json(Path("reports/export/parity.json"))["graphs"]
    assert all(0 < entry["largest_error"] <= entry["limit"] for entry in graphs.values())
    tensorrt = read_json(Path("reports/export/tensorrt.json"))
    assert tensorrt["built"] or tensorrt["why"].startswith("not built: ")


def test_a_graph_above_the_limit_stops_the_stage_and_keeps_the_report(
    exported: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    def again(spec: GraphSpec, path: Path, *, opset: int, external_data: bool) -> ExportedGraph:
        """The graphs of the same model, which take half a minute to make, are measured anew."""
        for part in exported.glob(f"{path.name}*"):
            shutil.copy(part, path.parent)
        return ExportedGraph(path, opset, num_nodes=0, seconds=0.0)

    monkeypatch.setattr(make_bundle, "export_graph", again)
    report, kept = Path("reports/export/parity.json"), (exported / "manifest.json").read_bytes()
    before = report.read_bytes()
    report.unlink()
    # Just below what was measured, so that a limit which is a little too wide lets it through.
    limit = 0.8 * json.loads(before)["graphs"]["step.onnx"]["largest_error"]
    strict = dataclasses.replace(params, export=dataclasses.replace(params.export, max_transformer_error=limit))
    with pytest.raises(GateRefused, match=r"step\.onnx differs from eager torch by .*parity\.json"):
        export.main(strict)
    # Equal but for the limit: the report holds nothing of the run.
    kept_report, first = read_json(report), json.loads(before)
    assert {kept_report["graphs"][graph].pop("limit") for graph in ("step.onnx", "end_to_end")} == {limit}
    assert {first["graphs"][graph].pop("limit") for graph in ("step.onnx", "end_to_end")} == {0.0001}
    assert kept_report == first
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


@pytest.fixture(scope="module")
def served(exported: Path, params: Params) -> Any:
    """The registered model as MLflow loads it."""
    import mlflow

    register.main(params)
    mlflow.set_tracking_uri(tracking_uri())
    return mlflow.pyfunc.load_model(f"models:/{params.register.name}@challenger")


def test_the_registered_model_answers(served: Any) -> None:
    import pandas as pd

    defaults = {spec.name: spec.default for spec in served.metadata.signature.params}
    assert (defaults["guidance_scale"], defaults["num_solver_steps"]) == (3.5, 3)
    assert list(served.input_example) == ["a red three top left"]
    rows = [{"id": "1", "task": "text_to_image", "prompt": "a red three"}, {"id": "2", "task": "text", "prompt": ""}]
    answers = served.predict(pd.DataFrame(rows), params={"num_solver_steps": 2})
    assert Image.open(io.BytesIO(answers["image_png"][0])).size == (SIDE_PX, SIDE_PX)
    assert answers["error"][1] == "prompt is empty"


def test_a_registered_model_is_asked_by_its_alias(served: Any, params: Params, capsys: pytest.CaptureFixture[str]) -> None:
    uri = f"models:/{params.register.name}@challenger"
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*") if path.name != "registered_model_meta"}
    assert ask.main(["a red three", "--model", uri, "-o", "red.png", "--seed", "0"]) == 0
    assert "red.png (guidance 3.5, 3 steps of euler, seed 0, onnxruntime)" in capsys.readouterr().out
    # What it says of itself is what it does: the same picture by the bundle.
    open_model("artifacts/bundle").ask("a red three").save("again.png")
    assert Path("red.png").read_bytes() == Path("again.png").read_bytes()
    after = {path: path.stat().st_mtime_ns for path in Path().rglob("*") if path.is_file() and path in before}
    assert {path for path in after if after[path] != before[path]} <= {Path("mlflow.db")}
    for uri, said in (("models:/transfusion@nobody", "cannot be had from"), ("models:/nobody/1", "cannot be had from")):
        assert ask.main(["a red three", "--model", uri]) == 1
        refusal = capsys.readouterr().err
        assert said in refusal and refusal.count("\n") == 1


PICTURE = "data/requests/images/b.png"
# A record's fields but for its id, and what its error begins with.
RECORDS: list[tuple[dict[str, Any], str]] = [
    ({"task": "text", "prompt": "a blue"}, ""),
    ({"task": "image_to_text", "image": "picture"}, ""),
    ({"task": "image_to_text", "image": None}, "image is missing"),
    ({"task": "image_to_text"}, "image is missing"),
    ({"task": "image_to_text", "image": ""}, "image is missing"),
    ({"task": "image_to_text", "image": "@@"}, "image is not base64"),
    ({"task": "image_to_text", "image": "YWJj"}, "image is not PNG, JPEG, WEBP"),
    ({"task": "image_to_text", "image": 7}, "image must be an image file's bytes"),
    ({"task": "text", "prompt": None}, "prompt is empty"),
    ({"task": "text", "prompt": 7}, "prompt must be text, not int"),
    ({"task": "text", "prompt": ["a"]}, "prompt must be text, not list"),
    ({"task": "text", "prompt": float("nan")}, "prompt is empty"),
    ({"task": None, "prompt": "a"}, ""),
    ({"image": "picture"}, ""),
    ({"task": "sing", "prompt": "a"}, "task 'sing' is not one of"),
    ({"task": "text", "prompt": "word " * 200}, "prompt has 1000 bytes, more than the 128 positions of the model can hold"),
    ({"task": "text", "prompt": "zq" * 100}, "prompt and answer may take"),
    ({"task": "text", "prompt": "a", "image": "picture"}, "image has no meaning for text"),
]


def test_a_served_record_that_cannot_be_answered_harms_no_other(served: Any) -> None:
    """By HTTP, where pictures are base64, and called, where they are bytes."""
    import pandas as pd
    from fastapi.testclient import TestClient
    from mlflow.pyfunc import scoring_server

    picture = Path(PICTURE).read_bytes()
    called = [{"id": str(n), **record} for n, (record, _) in enumerate(RECORDS)]
    called = [row | ({"image": picture} if row.get("image") == "picture" else {}) for row in called] + [{"task": "text"}]
    sent = [row | ({"image": base64.b64encode(picture).decode()} if row.get("image") == picture else {}) for row in called]
    parameters = {"max_new_tokens": 3}
    client = TestClient(scoring_server.init(served))
    body = json.dumps({"dataframe_records": sent, "params": parameters})
    response = client.post("/invocations", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 200
    for answers in (response.json()["predictions"], served.predict(pd.DataFrame(called), parameters).to_dict("records")):
        assert [answer["id"] for answer in answers] == [*map(str, range(len(RECORDS))), str(len(RECORDS) + 1)]
        assert answers[-1]["error"] == "prompt is empty"
        for answer, (_, said) in zip(answers[:-1], RECORDS, strict=True):
            assert answer["error"].startswith(said) and bool(answer["error"]) == bool(said)


def test_a_plain_list_of_prompts_is_answered(served: Any) -> None:
    """Called, and by HTTP; also one prompt, and records as a list."""
    from fastapi.testclient import TestClient
    from mlflow.pyfunc import scoring_server

    prompts, predictor = ["a red three", "a blue seven"], open_model("artifacts/bundle")
    wanted = [answer.image_png for answer in predictor.predict(prompts)]
    answers = served.predict(prompts)
    assert list(answers["image_png"]) == wanted and list(answers["id"]) == ["1", "2"]
    assert list(served.predict(prompts[0])["image_png"]) == wanted[:1]
    assert list(served.predict([{"prompt": prompts[0]}, 7])["error"]) == ["", "a record must be text or an object, not int"]
    client = TestClient(scoring_server.init(served))
    for body in ({"inputs": prompts}, {"dataframe_records": [{"prompt": prompt} for prompt in prompts]}):
        sent = {"content": json.dumps(body), "headers": {"content-type": "application/json"}}
        found = client.post("/invocations", **sent).json()["predictions"]
        assert [base64.b64decode(answer["image_png"]) for answer in found] == wanted


# A process of another folder, which is searched first and holds files of our packages' names; ours cannot be imported.
ELSEWHERE = """
import importlib.util, sys
sys.meta_path[:] = [finder for finder in sys.meta_path if not getattr(finder, "__module__", "").startswith("__editable__")]
assert not any(importlib.util.find_spec(name) for name in ("core", "export", "model", "pipelines", "components"))
sys.path.insert(0, "")
assert importlib.util.find_spec("model").origin == f"{sys.argv[2]}/model.py"
import mlflow
answers = mlflow.pyfunc.load_model(sys.argv[1]).predict(["a red three"])
assert not answers["error"][0], answers["error"][0]
open("red.png", "wb").write(answers["image_png"][0])
"""


def test_a_registered_model_answers_where_this_repository_is_not(served: Any, params: Params, tmp_path: Path) -> None:
    """From its store, in another folder with a hostile `model.py`."""
    for name in ("model.py", "core.py", "export.py"):
        (tmp_path / name).write_text("raise SystemExit('a file of the user was taken for ours')\n")
    uri = f"models:/{params.register.name}@challenger"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": tracking_uri()}
    line = [sys.executable, "-I", "-c", ELSEWHERE, uri, str(tmp_path)]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "red.png").read_bytes() == served.predict(["a red three"])["image_png"][0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("num_solver_steps", value) for value in (0, -1, 10**9, 1.5, "abc", None, [3], True)),
        *(("max_new_tokens", value) for value in (0, -1, 10**9, 10**30)),
        *(("guidance_scale", value) for value in (0.0, -1.0, float("nan"), float("inf"), "x")),
        ("seed", 0.5),
    ],
)
def test_a_parameter_that_cannot_be_used_is_refused_by_name(served: Any, name: str, value: Any) -> None:
    from fastapi.testclient import TestClient
    from mlflow.pyfunc import scoring_server

    client = TestClient(scoring_server.init(served))
    body = json.dumps({"dataframe_records": [{"id": "1", "task": "text", "prompt": "a"}], "params": {name: value}})
    response = client.post("/invocations", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    said = response.json()
    assert name in said["message"] and "unexpected error" not in said["message"]
    assert "Traceback" not in response.text


def test_infer_answers_the_good_and_sets_the_bad_aside(
    exported: Path, params: Params, cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Here, and not in the processes that answer: they open the engine, and say which it is.
    monkeypatch.setattr("export.run.engines._open_onnxruntime", None)
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
    assert report["engine"] == "onnxruntime"
    assert Image.open("reports/infer/predictions.png").width > 100
    assert not Path(".work/infer").exists()


def test_an_interrupted_infer_answers_only_what_is_left(
    exported: Path, params: Params, cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = (Path("artifacts/predictions") / "results.jsonl").read_bytes()
    given: list[int] = []
    start = infer.map_over_pool

    def interrupted(items, *rest):
        given.append(sum(len(item["lines"]) for item in items))
        for number, result in enumerate(start(items, *rest)):
            if len(given) == 1 and number == 2:
                raise KeyboardInterrupt
            yield result

    monkeypatch.setattr(infer, "map_over_pool", interrupted)
    with pytest.raises(KeyboardInterrupt):
        infer.main(params)
    assert (Path("artifacts/predictions") / "results.jsonl").read_bytes() == wanted
    infer.main(params)
    assert 0 < given[1] < given[0] == 7
    assert (Path("artifacts/predictions") / "results.jsonl").read_bytes() == wanted
    report = read_json(Path("reports/infer/throughput.json"))
    assert report["requests_taken_from_an_interrupted_run"] == given[0] - given[1]


class Killer(BatchActor):
    """Answers as it should, with an engine that ends its process for a prompt with a percent sign."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        (token,) = self.predictor.tokenizer.encode("%")
        engine = self.predictor.opened.engine
        step = engine.step

        def deadly(inputs: Any, cache: Any, rows: slice) -> Any:
            if inputs.input_ids.shape[1] > 1 and bool((inputs.input_ids == token).any()):
                os.kill(os.getpid(), signal.SIGKILL)
            return step(inputs, cache, rows)

        engine.step = deadly  # type: ignore[method-assign]


def test_no_request_takes_the_others_with_it(
    exported: Path, params: Params, cluster: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Half a surrogate pair, a pipe, a link to a secret, a giant, a broken picture, and one that kills its process."""
    (tmp_path / "secret").write_bytes(Path(PICTURE).read_bytes())
    place = tmp_path / "requests"
    place.mkdir()
    os.mkfifo(place / "pipe.png")
    (place / "link.png").symlink_to("../secret")
    (place / "broken.png").write_bytes(b"no picture")
    (place / "good.png").write_bytes(Path(PICTURE).read_bytes())
    with (place / "giant.png").open("wb") as file:
        file.truncate(2**40)
    lines = [
        {"id": "good-1", "task": "text", "prompt": "Return the"},
        {"id": "killer", "task": "text", "prompt": "a %"},
        {"id": "cut-emoji", "task": "text", "prompt": "I like it \ud83d"},
        *(
            {"id": name, "task": "image_to_text", "image": f"{name}.png"}
            for name in ("pipe", "link", "giant", "broken", "good")
        ),
        {"id": "../good", "task": "text_to_image", "prompt": "a red three"},
        {"id": "good-1\0", "task": "text", "prompt": "a\0b <|eos|>"},
    ]
    (place / "r.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(infer, "BatchActor", Killer)
    # Fewer starts of a process; the number itself is held by a test of its own.
    monkeypatch.setattr("export.run.batch.MAX_TRIES", 2)
    infer.main(dataclasses.replace(params, infer=dataclasses.replace(params.infer, requests=str(place / "r.jsonl"))))
    predictions = Path("artifacts/predictions")
    results = [json.loads(line) for line in (predictions / "results.jsonl").read_text().splitlines()]
    aside = [json.loads(line) for line in (predictions / "quarantine.jsonl").read_text().splitlines()]
    assert [entry["id"] for entry in results] == ["good-1", "good", "../good", "good-1\0"]
    assert {entry["id"]: entry["reason"].partition(" (")[0] for entry in aside} == {
        "killer": "ended the process that answered it 2 times",
        "cut-emoji": aside[1]["reason"],
        "pipe": "image 'pipe.png' is not a file",
        "link": "image 'link.png' is a link out of the folder of the requests",
        "giant": "image has more than 64 MiB",
        "broken": "image is not PNG, JPEG, WEBP",
    }
    assert "surrogate" in aside[1]["reason"]
    assert len(results) + len(aside) == len(lines)


def test_a_full_disk_is_one_sentence_and_a_rerun_goes_on(
    exported: Path, params: Params, cluster: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The journal on a full device, then a picture that a worker writes there."""
    start = infer.map_over_pool

    def interrupted(items, *rest):
        yield next(start(items, *rest))
        raise KeyboardInterrupt

    shutil.rmtree(".work/infer", ignore_errors=True)
    monkeypatch.setattr(infer, "map_over_pool", interrupted)
    assert stage.exit_code("infer: ", lambda: infer.main(params)) == 130
    monkeypatch.setattr(infer, "map_over_pool", start)
    (work,) = Path(".work/infer").iterdir()
    journal, kept = work / "journal.jsonl", (work / "journal.jsonl").read_bytes()
    capsys.readouterr()
    journal.rename(work / "kept")
    journal.symlink_to("/dev/full")
    assert stage.exit_code("infer: ", lambda: infer.main(params)) == 1
    told = capsys.readouterr().err.strip()
    assert "\n" not in told and "full" in told and "Traceback" not in told and "journal.jsonl" in told, told
    journal.unlink()
    (work / "kept").rename(journal)
    picture = work / "predictions/images/000009.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.unlink(missing_ok=True)
    picture.symlink_to("/dev/full")
    assert stage.exit_code("infer: ", lambda: infer.main(params)) == 1
    told = capsys.readouterr().err.strip()
    assert "\n" not in told and "full" in told and "Traceback" not in told and picture.name in told, told
    assert journal.read_bytes().startswith(kept)
    picture.unlink()
    infer.main(params)
    report = read_json(Path("reports/infer/throughput.json"))
    assert report["requests_taken_from_an_interrupted_run"] >= 1
    assert (report["requests"], report["requests_set_aside"]) == (5, 4)


def test_where_nothing_is_answered_the_stage_fails_and_says_where_to_look(
    exported: Path, params: Params, cluster: None
) -> None:
    Path("hopeless.jsonl").write_text(json.dumps({"id": "1", "task": "image_to_text", "image": "none.png"}) + "\n{\n")
    with pytest.raises(BadInput, match=r"none of the requests in hopeless\.jsonl has an answer; .*quarantine\.jsonl"):
        infer.main(dataclasses.replace(params, infer=dataclasses.replace(params.infer, requests="hopeless.jsonl")))
    aside = [json.loads(line) for line in Path("artifacts/predictions/quarantine.jsonl").read_text().splitlines()]
    assert [(entry["line"], entry["id"]) for entry in aside] == [(1, "1"), (2, "")]


def test_infer_refuses_before_any_work(exported: Path, params: Params, cluster: None) -> None:
    def infer_with(**changes: str) -> None:
        infer.main(dataclasses.replace(params, infer=dataclasses.replace(params.infer, **changes)))

    with pytest.raises(BadInput, match=r"infer\.requests"):
        infer_with(requests="data/requests/none.jsonl")
    Path("empty.jsonl").write_text("\n\n")
    with pytest.raises(BadInput, match="no usable request"):
        infer_with(requests="empty.jsonl")
    before = set(Path(".work").glob("infer/*"))
    with pytest.raises(BadInput, match="TensorRT cannot run"):
        infer_with(engine="tensorrt")
    assert set(Path(".work").glob("infer/*")) == before
    graph = exported / "step.onnx"
    data = graph.read_bytes()
    graph.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    try:
        with pytest.raises(BadInput, match=r"step.onnx does not have the bytes"):
            infer.main(params)
    finally:
        graph.write_bytes(data)


def _evaluated(metrics: dict[str, float]) -> None:
    """What the evaluation of artifacts/train leaves."""
    write_json(Path("reports/evaluate/metrics.json"), metrics)
    _, ancestors = given("tokenizer", "autoencoder", "train")
    facts = {"ancestors": ancestors, "sampling": SAMPLING}
    write_manifest(Path("reports/evaluate"), kind="evaluation", names=["metrics.json"], **facts)


def _republish(bundle: Path, metrics: dict[str, float]) -> None:
    """The same bundle after another evaluation."""
    _evaluated(metrics)
    (bundle / "README.md").write_text(json.dumps(metrics))
    _, ancestors = given("tokenizer", "autoencoder", "train", "evaluation")
    parity = sha256(Path("reports/export/parity.json"))
    write_manifest(bundle, kind="bundle", parity_sha256=parity, ancestors=ancestors)
