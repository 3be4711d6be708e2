"""register gives a bundle one version, and the aliases that its figures earn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from components.evaluation.metrics import HEADLINE
from components.runtime.provenance import origin_tags
from components.runtime.recording import recorded
from components.runtime.registry import set_alias, show_evaluation, version_of
from components.runtime.tracking import identity_of
from components.runtime.tracking_store import client_of, tracking_uri
from core.errors import BadInput
from core.files import read_json, sha256, write_bytes
from core.manifest import write_manifest
from core.metric_keys import FIGURES
from core.png import encode_png
from export.bundle import open_bundle
from pipelines import paths, promote, register
from pipelines.ancestry import given
from pipelines.evaluation_run import record
from pipelines.promotion import rule_of
from pipelines.sections import Params
from tests.pipelines.bundle_stages.trained_folder import METRICS, evaluated
from tests.pipelines.stage_process import REPOSITORY


def test_register_gives_one_version_a_bundle_and_aliases_by_the_rule(exported: Path, params: Params) -> None:
    name, uri, report = params.register.name, tracking_uri(), Path("reports/register/version.json")
    run_id, client = read_json(Path("artifacts/train/run.json"))["run_id"], client_of(uri)
    with recorded(identity_of(run_id)):
        pass
    before = client.get_run(run_id).info
    write_bytes(paths.EVALUATION / "samples.png", encode_png(np.zeros((8, 8, 3), np.uint8)))
    record(params, paths.EVALUATION, paths.TRAIN, documents=(paths.DOCUMENTS, "d" * 64), captions=[], started_ms=0)
    register.main(params)
    first = read_json(report)
    assert first["aliases"] == ["challenger", "champion"]
    register.main(params)
    assert read_json(report)["version"] == first["version"]
    # A worse bundle is challenger alone; its digest differs because its card does.
    worse = METRICS | {"text_to_image/objects_right": 0.94}
    republish(exported, worse)
    register.main(params)
    second = read_json(report)
    assert second["version"] != first["version"]
    assert second["aliases"] == ["challenger"]
    assert any("is 0.01 worse beside the champion's 0.95" in reason for reason in second["reasons"])
    champion, challenger = (version_of(uri, name, alias=alias) for alias in ("champion", "challenger"))
    assert champion is not None
    assert challenger is not None
    assert (champion.version, challenger.version) == (first["version"], second["version"])
    assert champion.run_id == run_id
    assert (champion.metrics, challenger.metrics) == (METRICS, worse)
    assert client.get_run(run_id).info.end_time == before.end_time, "registering lengthens no training"
    on_version = {key for key in champion.tags if key.startswith("metric/")}
    read = rule_of(params.register).read
    assert on_version == {f"metric/{key}" for key in read & METRICS.keys()} and on_version
    card = client.get_model_version(name, first["version"]).description or ""
    assert card.startswith("# Transfusion") and "## Intended use" in card and "## Limits" in card
    assert champion.tags["text_to_image/objects_right"] == "0.9500 (0.9400 to 0.9600)"
    made_from = open_bundle(exported).manifest["ancestors"]
    assert champion.tags["train_digest"] == made_from["train"] and champion.tags["tokenizer_digest"] == made_from["tokenizer"]
    assert champion.tags["engines"].startswith("ONNX Runtime (opset 24); TensorRT not built: ")
    assert float(champion.tags["onnx_error/step.onnx"]) < 1e-3
    origin = {key: value for key, value in origin_tags().items() if key.startswith("mlflow.source.git.")}
    assert origin.items() <= champion.tags.items()
    model = client.get_logged_model(str(client.get_model_version(name, first["version"]).source).rpartition("/")[2])
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": name, "version": first["version"]}]
    shown = {metric.key: (metric.value, metric.dataset_name) for metric in model.metrics or []}
    wanted = {key: (METRICS[key], "held-out documents") for key in HEADLINE.values() if key in METRICS}
    assert shown == wanted and wanted
    (experiment,) = client.search_experiments(filter_string="name = 'transfusion'")
    client.create_run(experiment.experiment_id, tags={FIGURES: "half"})
    assert not show_evaluation(uri, champion, tag=FIGURES, value="half"), "a run whose metrics have not arrived"
    client.delete_logged_model(model.model_id)
    outlived = version_of(uri, name, alias="champion")
    assert outlived is not None
    assert outlived.metrics == {key: METRICS[key] for key in read & METRICS.keys()}
    # Below a bound nothing becomes champion, even without another one.
    republish(exported, METRICS | {"image_to_text/objects_right": 0.5})
    client.delete_registered_model_alias(name, "champion")
    register.main(params)
    below = read_json(report)
    assert below["aliases"] == ["challenger"] and "there is no champion yet" in below["reasons"]


def test_a_registered_version_is_promoted_and_rolled_back_from_another_clone(
    exported: Path, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, uri = params.register.name, tracking_uri()
    better = METRICS | {"text_to_image/objects_right": 1.0}

    def registered(metrics: dict[str, float]) -> str:
        republish(exported, metrics)
        register.main(params)
        return read_json(Path("reports/register/version.json"))["version"]

    def champion() -> str:
        found = version_of(uri, name, alias="champion")
        return found.version if found else ""

    first = registered(METRICS)
    set_alias(uri, name, "champion", first)
    republish(exported, better)
    # Of another evaluation than stands in reports/.
    kept = (paths.EVALUATION_ITEMS / "manifest.json").read_bytes()
    evaluated(METRICS)
    (paths.EVALUATION_ITEMS / "manifest.json").rename(tmp_path / "manifest.json")
    evaluated(better)
    (tmp_path / "manifest.json").rename(paths.EVALUATION_ITEMS / "manifest.json")
    with pytest.raises(BadInput, match=r"artifacts/evaluation"):
        register.main(params)
    (paths.EVALUATION_ITEMS / "manifest.json").write_bytes(kept)
    second = registered(better)
    assert champion() == second, "the stage promotes by the same rule"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)

    def ran(*line: str) -> int:
        monkeypatch.setattr("sys.argv", ["promote", "--params", str(REPOSITORY / "params.yaml"), *line])
        return promote.main()

    assert ran("--roll-back") == 0 and champion() == first
    assert ran() == 1 and champion() == first and "was rolled back" in capsys.readouterr().out
    assert ran(second) == 0 and champion() == second
    assert "1 is 0.05 better beside the champion's 0.95" in capsys.readouterr().out


def republish(bundle: Path, metrics: dict[str, float]) -> None:
    """The same bundle after another evaluation."""
    evaluated(metrics)
    (bundle / "README.md").write_text(json.dumps(metrics))
    _, ancestors = given("tokenizer", "autoencoder", "train", "evaluation")
    parity = sha256(Path("reports/export/parity.json"))
    write_manifest(bundle, kind="bundle", parity_sha256=parity, ancestors=ancestors)
