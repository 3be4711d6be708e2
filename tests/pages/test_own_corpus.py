"""Pictures of one's own go through the whole graph as the page on them says, and a second run does what is left to do."""

from __future__ import annotations

import json
import re
import resource

import mlflow
import pytest
from ruamel.yaml import YAML

from benchmarks.faults.repro import set_params
from tests.pages.commands import ACTIVATE
from tests.pages.own_corpus import NUM_PICTURES, PAGE, OwnCorpus
from tests.pages.project import ended, ran, report, stages_run, start, that_say_where_they_were_made


@pytest.mark.timeout(1800)
def test_pictures_of_ones_own_become_answers(own_corpus: OwnCorpus) -> None:
    project = own_corpus.project
    requests = [json.loads(line) for line in (project / "data/requests/requests.jsonl").read_text().splitlines()]
    prompts = [request["prompt"] for request in requests if request["task"] == "text_to_image"]
    assert len(prompts) == 12 and all(re.fullmatch(r"number \d+ is a \w+ square on the \w+", prompt) for prompt in prompts)
    results = (project / "artifacts/predictions/results.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in results] == [request["id"] for request in requests]
    counts = report(project, "ingest/counts.json")["corpora"]["mine"]
    assert (counts["documents"], counts["rejected"], counts["duplicates_dropped"]) == (NUM_PICTURES, 1, 1)
    card = (project / "artifacts/bundle/README.md").read_text()
    assert "a caption like those it was trained on" in card and "red three" not in card
    assert "max_abs" in (project / "reports/export/parity.json").read_text()
    for name in re.findall(r"`((?:reports|artifacts|data)/[\w./]+)`", PAGE.read_text()):
        assert (project / name).exists(), name
    assert "artifacts/bundle" in own_corpus.said and "transfusion version 1" in own_corpus.said


def test_the_first_version_is_champion_where_no_bound_is_set(own_corpus: OwnCorpus) -> None:
    assert report(own_corpus.project, "register/version.json")["aliases"] == ["challenger", "champion"]
    store = f"sqlite:///{own_corpus.project}/mlflow.db"
    client = mlflow.MlflowClient(store, registry_uri=store)
    run_id = json.loads((own_corpus.project / "artifacts/train/run.json").read_text())["run_id"]
    here = [client.get_run(run_id).info.experiment_id]
    (evaluation,) = client.search_runs(here, f"tags.`mlflow.parentRunId` = '{run_id}'")
    for alias in ("challenger", "champion"):
        version = client.get_model_version_by_alias("transfusion", alias)
        assert version.run_id == run_id
        model = client.get_logged_model(str(version.source).rpartition("/")[2])
        assert (model.name, model.source_run_id) == ("transfusion", run_id)
        assert {(metric.dataset_name, metric.run_id) for metric in model.metrics or []} == {
            ("held-out documents", evaluation.info.run_id)
        }


def test_no_output_says_where_it_was_made(own_corpus: OwnCorpus) -> None:
    assert not that_say_where_they_were_made(own_corpus.project)


def test_a_second_run_only_looks_at_the_inputs(own_corpus: OwnCorpus) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = ran(own_corpus.project, ACTIVATE, "dvc repro")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert stages_run(said) == ["inputs"]
    # Of a processor: what else runs beside the tests costs no test.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10


def test_a_refusing_gate_stops_the_graph_and_loses_nothing(own_corpus: OwnCorpus) -> None:
    project, params = own_corpus.project, own_corpus.project / "params.yaml"
    before = (project / "artifacts/train/manifest.json").read_bytes()
    floor = YAML().load(params.read_text())["validate"]["documents"]["min_documents"]
    set_params(params, {"validate.documents.min_documents": 1_000_000})
    try:
        code, said = ended(start(project, ACTIVATE, "dvc repro"))
    finally:
        set_params(params, {"validate.documents.min_documents": floor})
    assert code != 0
    assert "validate-documents: refused:" in said and "is below validate.documents.min_documents 1000000" in said
    assert stages_run(said) == ["inputs", "validate@documents"]
    assert (project / "artifacts/train/manifest.json").read_bytes() == before
    assert "autoencoder" not in stages_run(ran(project, ACTIVATE, "dvc repro export"))
