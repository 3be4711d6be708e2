"""register gives a bundle one version, and the aliases that its figures earn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from components.evaluation.metrics import HEADLINE
from components.runtime.recording import recorded
from components.runtime.registry import set_alias, show_evaluation, version_of
from components.runtime.tracking import identity_of
from components.runtime.tracking_store import client_of, tracking_uri
from core.files import read_json, sha256, write_bytes
from core.manifest import write_manifest
from core.metric_keys import FIGURES
from core.png import encode_png
from pipelines import paths, register
from pipelines.ancestry import given
from pipelines.evaluation_run import record
from pipelines.sections import Params
from tests.pipelines.bundle_stages.trained_folder import METRICS, evaluated


def test_register_gives_one_version_a_bundle_and_aliases_by_the_rule(exported: Path, params: Params) -> None:
    name, uri, report = params.register.name, tracking_uri(), Path("reports/register/version.json")
    run_id, client = read_json(Path("artifacts/train/run.json"))["run_id"], client_of(uri)
    with recorded(identity_of(run_id)):
        pass
    before = client.get_run(run_id).info
    write_bytes(paths.EVALUATION / "samples.png", encode_png(np.zeros((8, 8, 3), np.uint8)))
    record(params, paths.EVALUATION, paths.TRAIN, documents=(paths.DOCUMENTS, "d" * 64), key="k", started_ms=0)
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
    assert any("worse than the champion" in reason for reason in second["reasons"])
    champion, challenger = (version_of(uri, name, alias=alias) for alias in ("champion", "challenger"))
    assert champion is not None
    assert challenger is not None
    assert (champion.version, challenger.version) == (first["version"], second["version"])
    assert champion.run_id == run_id
    assert (champion.metrics, challenger.metrics) == (METRICS, worse)
    assert client.get_run(run_id).info.end_time == before.end_time, "registering lengthens no training"
    on_version = {key for key in champion.tags if key.startswith("metric/")}
    read = {params.register.compare, f"{params.register.compare}_se", *params.register.floors}
    assert on_version == {f"metric/{key}" for key in read & METRICS.keys()} and on_version
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
    # Below a floor nothing becomes champion, even without another one.
    republish(exported, METRICS | {"image_to_text/objects_right": 0.5})
    set_alias(uri, name, "champion", second["version"])
    register.main(params)
    assert read_json(report)["aliases"] == ["challenger"]


def republish(bundle: Path, metrics: dict[str, float]) -> None:
    """The same bundle after another evaluation."""
    evaluated(metrics)
    (bundle / "README.md").write_text(json.dumps(metrics))
    _, ancestors = given("tokenizer", "autoencoder", "train", "evaluation")
    parity = sha256(Path("reports/export/parity.json"))
    write_manifest(bundle, kind="bundle", parity_sha256=parity, ancestors=ancestors)
