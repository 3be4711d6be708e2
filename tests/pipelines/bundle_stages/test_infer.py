"""infer answers what can be answered, sets the rest aside with a reason, and goes on where it was stopped."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from components.runtime.cluster import start_ray
from core.errors import BadInput
from core.files import read_json
from core.manifest import read_manifest
from export.run.batch import BatchActor
from pipelines import infer, stage
from pipelines.sections import Params
from tests.pipelines.bundle_stages.trained_folder import PICTURE, SIDE_PX


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One Ray for all that infer; the stage joins it."""
    with start_ray():
        yield


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
