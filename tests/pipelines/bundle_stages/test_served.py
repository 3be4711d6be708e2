"""A registered model answers as MLflow serves it: called, by HTTP, by its alias, and in another folder."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from components.runtime.tracking_store import tracking_uri
from export import ask
from export.ask import open_model
from pipelines import register
from pipelines.sections import Params
from tests.pipelines.bundle_stages.trained_folder import PICTURE, SIDE_PX

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
