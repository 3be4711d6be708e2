"""compare sets evaluations beside each other, wherever each of them is, and says why where something cannot be compared."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from components.evaluation.differences import Evaluation, differences, reasons
from components.evaluation.intervals import items_of
from components.evaluation.kept_items import KeptItems
from components.report.comparison import comparison_page
from components.runtime.tracking_store import client_of, experiment_id
from core.files import write_json
from core.manifest import write_manifest
from core.metric_keys import FIGURES
from pipelines import compare, paths
from tests.browser import browser
from tests.pipelines.test_promote import OBJECTS, REPOSITORY, Registry

BITS, FRECHET = "text/bits_per_byte", "distribution/frechet"
JUDGE = "text_to_image/judge_on_real"
NAMES = [f"d{number}" for number in range(100)]


@pytest.fixture
def registry(tmp_path: Path, empty_database: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A project without a run, beside its own store."""
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    shutil.copy(empty_database, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return Registry(f"sqlite:///{tmp_path}/mlflow.db", "transfusion", tmp_path)


def ran(*line: str) -> int:
    """The command's exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["compare", *line])
        return compare.main()


def written(said: str) -> str:
    """The page that the command's last line names."""
    return Path(said.splitlines()[-1].rpartition(": ")[2]).read_text()


def evaluation(name: str, metrics: Mapping[str, float], **items: np.ndarray) -> Evaluation:
    kept = {key.replace("__", "/"): items_of(NAMES, values, np.ones(len(NAMES))) for key, values in items.items()}
    return Evaluation(name, "", metrics, KeptItems(kept, dict.fromkeys(NAMES, "d"), {"seed": 17}, {}))


def test_a_difference_is_that_of_dvc_and_its_interval_is_of_pairs() -> None:
    noise = np.random.default_rng(1).normal(size=100)
    first = evaluation(
        "a", {OBJECTS: 0.5, BITS: 2.0, FRECHET: 9.0}, text_to_image__objects_right=noise, text__bits_per_byte=noise
    )
    second = evaluation(
        "b",
        {OBJECTS: 0.75, BITS: 2.5, FRECHET: 8.0},
        text_to_image__objects_right=noise + 0.25,
        text__bits_per_byte=noise + 0.5,
    )
    found = {each.key: each for each in differences(first, second)}
    assert {key: each.value for key, each in found.items()} == {OBJECTS: 0.25, BITS: 0.5, FRECHET: -1.0}
    assert found[OBJECTS].interval == pytest.approx((0.25, 0.25)) and found[BITS].interval == pytest.approx((0.5, 0.5))
    assert {key: each.verdict for key, each in found.items()} == {OBJECTS: "better", BITS: "worse", FRECHET: ""}
    assert reasons(list(found.values())) == {"not measured item by item": [FRECHET]}
    back = {each.key: each for each in differences(second, first)}
    assert back[BITS].interval == pytest.approx((-0.5, -0.5)) and back[BITS].verdict == "better"


def test_what_cannot_be_paired_has_its_difference_and_the_reason() -> None:
    values = np.zeros(100)
    first = evaluation("a", {OBJECTS: 0.5, BITS: 2.0}, text_to_image__objects_right=values)
    assert first.kept is not None
    for change, why in (
        ({"settings": {"seed": 18}}, "measured with other settings (evaluate.seed 17, and here 18) in a"),
        ({"held_out": {}}, "measured on other held-out documents (100 of 100 have another content) in a"),
    ):
        second = first._replace(name="b", kept=first.kept._replace(**change))
        found = {each.key: each for each in differences(first, second)}
        assert (found[OBJECTS].value, found[OBJECTS].interval, found[OBJECTS].why_none) == (0.0, None, why)
    bare = Evaluation("b", "", {OBJECTS: 0.6}, None, "it is old")
    (objects, bits) = differences(first, bare)
    assert (objects.value, objects.why_none) == (pytest.approx(0.1), "b has no items to compare by, since it is old")
    assert (bits.first, bits.second, bits.value, bits.why_none) == (2.0, None, None, "not measured in b")


def test_models_are_not_compared_by_what_is_of_the_data() -> None:
    noise = np.random.default_rng(1).normal(size=100)
    first, second = (
        evaluation(name, {JUDGE: 0.5 + gain, OBJECTS: 0.5 + gain}, text_to_image__judge_on_real=noise + gain)
        for name, gain in (("a", 0.0), ("b", 0.25))
    )
    found = {each.key: each for each in differences(first, second)}
    assert (found[JUDGE].value, found[JUDGE].interval, found[JUDGE].verdict) == (0.25, None, "")
    assert reasons(list(found.values()))["not a figure to compare models by"] == [JUDGE]


@pytest.mark.parametrize(
    ("num", "said"),
    [
        (80, "Of 80 intervals about 4 leave 0 out by chance, where nothing differs."),
        (10, "Of 10 intervals about 1 leaves 0 out by chance, where nothing differs."),
        (9, ""),
    ],
)
def test_of_many_intervals_some_leave_0_out_by_chance(num: int, said: str) -> None:
    keys = [f"image/x0_error/{number / 100:g}" for number in range(1, num + 1)]
    one = evaluation("a", {**dict.fromkeys(keys, 0.5), FRECHET: 1.0}, **dict.fromkeys(keys, np.zeros(100)))
    found = differences(one, one._replace(name="b"))
    assert [line for line in compare.notes(found) if "by chance" in line] == ([said] if said else [])
    page = comparison_page(one, [(one._replace(name="b"), found)])
    assert (said in page) if said else ("by chance" not in page)


def test_versions_of_the_registry(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    client_of(registry.uri).create_registered_model(registry.name)
    for right in (370, 385, 372):
        registry.register(right)
    assert ran("1", "models:/transfusion/2", "challenger") == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines()[:-1])) <= 100
    rows = [line.split() for line in said.splitlines() if line.startswith(OBJECTS)]
    assert [row[1:4] for row in rows] == [["0.925", "0.9625", "+0.0375"], ["0.925", "0.93", "+0.005"]]
    low, _, high = rows[0][4:7]
    assert float(low) > 0 and float(high) > 0.0375 and rows[0][7:] == ["better"]
    # Two items of 400 are not enough to tell.
    assert float(rows[1][4]) == 0 and rows[1][7:] == []
    assert "No interval for image_to_text/objects_right: not measured item by item." in said
    page = written(said)
    assert page.count("data:image/png;base64,") == 3
    assert "From the same prompts and the same noise, from left to right: 1, models:/transfusion/2, challenger." in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page) and not re.findall(r"https?://", page)
    assert ran("1", "1") == 0 and "No figure differs" in capsys.readouterr().out
    with browser() as opened:
        for width in (360, 1200):
            opened.open(Path(said.splitlines()[-1].rpartition(": ")[2]), width=width)
            assert opened.requests == [] and opened.said == []
            assert opened.value("document.documentElement.scrollWidth") <= width
            assert opened.value("[...document.images].every(image => image.naturalWidth > 0 && image.alt)")


def test_a_training_and_an_evaluation_beside_the_workspace(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    client = client_of(registry.uri)
    client.create_registered_model(registry.name)
    registry.register(380)
    write_json(paths.EVALUATION / "metrics.json", {OBJECTS: 0.95})
    write_manifest(paths.EVALUATION, kind="evaluation", names=["metrics.json"], ancestors={"autoencoder": "a"})
    experiment = experiment_id(client, registry.uri)
    training = client.create_run(experiment).info.run_id
    assert ran(training, "workspace") == 1
    assert f"run {training} in {registry.uri} is no evaluation, and none is below it" in capsys.readouterr().err
    below = client.create_run(experiment, run_name="of <it>", tags={FIGURES: "f", "mlflow.parentRunId": training}).info.run_id
    assert ran(training, "workspace") == 1 and "has not arrived" in capsys.readouterr().err
    write_json(registry.folder / "theirs/metrics.json", {OBJECTS: 0.9})
    client.log_artifacts(below, str(registry.folder / "theirs"), "evaluate")
    assert ran(below, "workspace", "-o", "mine.html") == 0
    assert "workspace: what lies in the project now" in (said := capsys.readouterr().out)
    assert f"{below} has no items to compare by, since its evaluation kept none" in " ".join(said.split())
    assert ran("1", below, "-o", "third.html") == 0
    assert f"{below[:8]} kept no pictures, since its evaluation kept none." in Path("third.html").read_text()
    client.log_artifacts(below, str(registry.folder / "items"), "items")
    shutil.copytree(registry.folder / "items", paths.EVALUATION_ITEMS)
    capsys.readouterr()
    # As after `git checkout` without `dvc checkout`.
    assert ran(training, "workspace") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "workspace has no items to compare by, since artifacts/evaluation holds the items of another evaluation" in said
    shutil.copy(registry.folder / "report/manifest.json", paths.EVALUATION)
    assert ran(training, "workspace", "-o", "mine.html") == 0
    (row,) = (line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(OBJECTS))
    assert row[1:] == ["0.9", "0.95", "+0.05", "+0", "to", "+0"], "values of the reports, an interval of the items"
    assert "of <it>" in unescape(Path("mine.html").read_text()) and "of <it>" not in Path("mine.html").read_text()
    # Of another evaluation, or torn.
    (paths.EVALUATION_ITEMS / "items.parquet").write_bytes(b"torn")
    assert ran(training, "workspace") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "since artifacts/evaluation/items.parquet does not have the bytes its manifest lists" in said


def test_many_runs_have_a_page_of_their_own(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(paths.EVALUATION / "metrics.json", {OBJECTS: 0.95})
    pages = set()
    for num in (30, 31):
        assert ran(*["workspace"] * num) == 0
        pages.add(capsys.readouterr().out.splitlines()[-1].rpartition(": ")[2])
    assert len(pages) == 2 and all(Path(page).is_file() for page in pages)


def test_revisions_and_experiments_by_name(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    client_of(registry.uri).create_registered_model(registry.name)

    def git(*line: str) -> str:
        identity = ("-c", "user.name=me", "-c", "user.email=me@example.org")
        return subprocess.run(["git", *identity, *line], check=True, capture_output=True, text=True).stdout.strip()

    def committed(right: int, *, kept: bool) -> str:
        registry.register(right)
        write_json(paths.EVALUATION / "metrics.json", {OBJECTS: right / 400})
        shutil.copytree(registry.folder / "report", paths.EVALUATION, dirs_exist_ok=True)
        if kept:
            shutil.copytree(registry.folder / "items", paths.EVALUATION_ITEMS, dirs_exist_ok=True)
            subprocess.run([sys.executable, "-m", "dvc", "add", "-q", str(paths.EVALUATION_ITEMS)], check=True)
        git("add", "reports", "artifacts")
        git("commit", "-qm", f"{right} right")
        return git("rev-parse", "HEAD")

    git("init", "-q")
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], check=True)
    paths.EVALUATION_ITEMS.parent.mkdir()
    write_json(paths.EVALUATION_ITEMS.parent / "other.json", {})
    without = committed(380, kept=False)
    committed(370, kept=True)
    git("tag", "before")
    git("update-ref", "refs/exps/ab/cdef/warmer", committed(390, kept=True))
    assert ran("before", "warmer") == 0
    said = capsys.readouterr().out
    assert "warmer: commit" in said and ": 390 right" in said
    (row,) = (line.split() for line in said.splitlines() if line.startswith(OBJECTS))
    assert row[1:4] == ["0.925", "0.975", "+0.05"] and row[-1] == "better"
    assert ran(without, "HEAD") == 0
    assert "since DVC's cache does not have them" in " ".join(capsys.readouterr().out.split())
    write_manifest(paths.EVALUATION, kind="evaluation", names=["metrics.json"], ancestors={"autoencoder": "b"})
    git("commit", "-qam", "the report of another evaluation, beside the items of the one before")
    assert ran("before", "HEAD") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "HEAD has no items to compare by, since artifacts/evaluation holds the items of another evaluation" in said
    git("update-ref", "refs/exps/ab/cdf0/warmer", without)
    assert ran("before", "warmer") == 1 and "2 experiments are called warmer" in capsys.readouterr().err


def test_what_is_no_evaluation_is_one_sentence(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(paths.EVALUATION / "metrics.json", {OBJECTS: 0.95})
    for run, said in (
        ("nobody", "nobody names no evaluation: transfusion has no version with the alias 'nobody'"),
        ("7", "transfusion has no version 7 in"),
        ("models:/other@champion", "other has no version with the alias 'champion'"),
        ("0" * 32, f"no run {'0' * 32} is in"),
    ):
        assert ran("workspace", run) == 1
        told = capsys.readouterr()
        assert said in told.err and told.err.count("\n") == 1 and not told.out, told
    (paths.EVALUATION / "metrics.json").unlink()
    assert ran("workspace", "7") == 1 and "nothing was evaluated in this project" in capsys.readouterr().err
    assert ran("workspace", "7", "--set", "register.nme=x") == 2 and "bad configuration" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        ran("workspace")
