"""promote moves the alias where the rule holds, gives it back, and leaves one champion wherever it is killed.

Against an SQLite store and a live MLflow server. The versions hold what the rule reads, and no bundle; those of the register
stage are promoted in tests/pipelines/bundle_stages/test_register.py.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus

from benchmarks.faults.store_server import StoreServer
from components.evaluation.intervals import items_of
from components.evaluation.kept_items import keep_items
from components.evaluation.results import GeneratedImage
from components.runtime import champion
from components.runtime.champion import HISTORY_TAG
from components.runtime.registry import METRIC_TAG, keep_beside, version_of
from components.runtime.tracking_store import client_of, experiment_id, fluent
from core.errors import BadInput
from core.manifest import write_manifest
from pipelines import promote
from pipelines.promotion import ITEMS_FOLDER
from tests.pipelines.killed_promotion import killed_before_write

REPOSITORY = Path(__file__).parents[2]
OBJECTS, NUM = "text_to_image/objects_right", 400
BOTH_BOUNDS = (OBJECTS, "image_to_text/objects_right")


class Registry(NamedTuple):
    """A registered model of its own in a store."""

    uri: str
    name: str
    folder: Path

    def register(self, right: int, *, held_out: str = "d", with_items: bool = True) -> str:
        """A version with so many of NUM items right, the challenger from now on; its number."""
        client, share = client_of(self.uri), right / NUM
        tags = {METRIC_TAG + key: repr(share) for key in BOTH_BOUNDS}
        model = client.create_logged_model(experiment_id(client, self.uri), self.name, tags=tags)
        if with_items:
            evaluation = write_manifest(self.folder / "report", kind="evaluation", ancestors={"autoencoder": "a"})
            items = items_of([str(at) for at in range(NUM)], [float(at < right) for at in range(NUM)], [1.0] * NUM)
            documents = {str(at): held_out for at in range(NUM)}
            about = {"held_out": documents, "settings": {"seed": 17}, "process": {}}
            picture = GeneratedImage("seen", np.full((4, 4, 3), right % 256, np.uint8), "a cat", "a dog", right > 375)
            keep_items(self.folder / "items", {OBJECTS: items}, about, evaluation, [picture])
            client.log_model_artifacts(model.model_id, str(self.folder / "items"), ITEMS_FOLDER)
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        # Where MLflow looks for the source, whatever store the client is of.
        fluent(self.uri)
        made = client.create_model_version(
            self.name, f"models:/{model.model_id}", model_id=model.model_id, await_creation_for=0
        )
        client.set_registered_model_alias(self.name, "challenger", made.version)
        return str(made.version)

    def aliases(self) -> dict[str, str]:
        """Alias -> number of its version."""
        return {alias: str(number) for alias, number in client_of(self.uri).get_registered_model(self.name).aliases.items()}

    @property
    def champion(self) -> str:
        return self.aliases().get("champion", "")

    def history(self) -> dict[str, str]:
        """Number of a version -> what happened to it last."""
        found = client_of(self.uri).search_model_versions(f"name = '{self.name}'")
        return {str(each.version): each.tags[HISTORY_TAG] for each in found if HISTORY_TAG in each.tags}

    def arguments(self, *line: str) -> list[str]:
        return [*line, "--set", f"register.name={self.name}"]


@pytest.fixture(scope="module", params=["sqlite", "server"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[str]:
    """The address of a store, one server for all of this file."""
    folder = tmp_path_factory.mktemp("store")
    if request.param == "sqlite":
        shutil.copyfile(empty_database, folder / "mlflow.db")
        yield f"sqlite:///{folder}/mlflow.db"
        return
    shutil.copyfile(empty_database, folder / "server.db")
    with StoreServer(folder) as server:
        yield server.uri


@pytest.fixture
def registry(store: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """In a clone that has never seen the versions' bundles."""
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    name = request.node.name.partition("[")[0]
    client_of(store).create_registered_model(name)
    return Registry(store, name, tmp_path)


def ran(registry: Registry, *line: str) -> int:
    """The command's exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["promote", *registry.arguments(*line)])
        return promote.main()


def test_the_rule_decides(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    first = registry.register(370)
    assert ran(registry, "--dry-run") == 0 and registry.champion == ""
    assert "would be champion" in capsys.readouterr().out
    assert ran(registry) == 0 and registry.champion == first
    assert "there is no champion yet" in capsys.readouterr().out
    worse = registry.register(362)
    assert ran(registry) == 1 and registry.champion == first
    told = capsys.readouterr()
    assert f"{OBJECTS} 0.905 is 0.02 worse beside the champion's 0.925 (95% of resamples -0.035 to -0.0075 better" in told.out
    assert f"refused: {registry.name} version {worse} does not become champion" in told.err and told.err.count("\n") == 1
    equal = registry.register(370)
    assert ran(registry, "challenger") == 0 and registry.champion == equal
    assert "came out the same as the champion's on every item" in capsys.readouterr().out
    better = registry.register(385)
    assert ran(registry, better, "--dry-run") == 0 and registry.champion == equal
    assert ran(registry, better) == 0 and registry.champion == better
    told = capsys.readouterr().out
    assert ": better\n" in told and f"is champion; before it, version {equal} was, and `python -m pipelines.promote" in told
    assert ran(registry, better) == 0 and "is the champion already" in capsys.readouterr().out
    low = registry.register(350)
    assert ran(registry) == 1 and "0.875 misses its least value 0.9" in capsys.readouterr().out
    assert ran(registry, "--without-comparison") == 1, "the bounds still hold"
    assert registry.aliases() == {"challenger": low, "champion": better}


def test_what_cannot_be_compared_needs_a_word(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    before = registry.register(370, with_items=False)
    assert ran(registry) == 0 and registry.champion == before
    later = registry.register(390)
    assert ran(registry) == 1 and registry.champion == before
    assert "the champion has no items of its evaluation" in capsys.readouterr().out
    assert ran(registry, "--without-comparison") == 0 and registry.champion == later
    registry.register(395, held_out="e")
    assert ran(registry) == 1 and registry.champion == later
    assert "on other held-out documents (400 of 400 have another content) in the champion" in capsys.readouterr().out
    assert ran(registry, before) == 1 and "this version has no items" in capsys.readouterr().out


def test_a_roll_back_gives_the_alias_to_the_champion_before(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    assert ran(registry, "--roll-back") == 1 and "nothing to roll back" in capsys.readouterr().err
    first = registry.register(370)
    ran(registry)
    assert ran(registry, "--roll-back") == 1 and "is the first champion" in capsys.readouterr().err
    second = registry.register(380)
    ran(registry)
    assert ran(registry, "--roll-back", "--dry-run") == 0 and registry.champion == second
    assert f"version {first} would be champion again" in capsys.readouterr().out
    for said in (f"version {first} is champion again, in place of version {second}", "nothing to do"):
        assert ran(registry, "--roll-back") == 0 and registry.champion == first
        assert said in capsys.readouterr().out
        assert registry.history() == {first: f"restored from {second}", second: f"rolled back to {first}"}
    # What was taken back comes again when somebody asks for it, and not by itself.
    assert ran(registry) == 1 and f"`python -m pipelines.promote {second}`" in capsys.readouterr().out
    assert ran(registry, second) == 0 and registry.champion == second
    assert ran(registry, "--roll-back") == 0 and registry.champion == first


def test_who_loses_a_race_leaves_no_trace(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two promotions over the same champion: one before the other looked, and one between its note and the alias."""
    first, winner, loser = (registry.register(right) for right in (370, 380, 390))
    ran(registry, first)
    ran(registry, winner)
    expected = {first: "the first", winner: f"promoted over {first}"}
    with pytest.raises(BadInput, match=r"another version of .* became champion in .* meanwhile; run this again"):
        champion.promote(registry.uri, registry.name, loser, over=first)
    assert (registry.champion, registry.history()) == (winner, expected)
    ran(registry, "--roll-back")
    taken_back = {first: f"restored from {winner}", winner: f"rolled back to {first}"}
    check, looks = champion._check_champion, []

    def overtaken(uri: str, name: str, expected: str) -> None:
        looks.append(expected)
        if len(looks) == 2:
            monkeypatch.setattr(champion, "_check_champion", check)
            champion.promote(uri, name, loser, over=expected)
        check(uri, name, expected)

    monkeypatch.setattr(champion, "_check_champion", overtaken)
    with pytest.raises(BadInput, match="meanwhile"):
        champion.promote(registry.uri, registry.name, winner, over=first)
    assert (registry.champion, registry.history()) == (loser, taken_back | {loser: f"promoted over {first}"})


def test_items_whose_upload_was_cut_off_are_repaired(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    """They are uploaded one by one, the manifest last; before that they count as not kept, and keeping them again mends it."""
    first = registry.register(370, with_items=False)
    ran(registry, first)
    registry.register(380)
    version = version_of(registry.uri, registry.name, version=first)
    assert version is not None
    items = registry.folder / "items"
    half, whole = registry.folder / "half", {path.name: path.read_bytes() for path in items.iterdir()}
    half.mkdir()
    shutil.copy(items / "pictures.parquet", half)
    for torn, why in (
        ({}, "evaluation/manifest.json is missing"),
        ({"manifest.json": whole["manifest.json"]}, "evaluation/items.parquet is listed in the manifest but missing"),
        ({"items.parquet": b"torn"}, "evaluation/items.parquet does not have the bytes its manifest lists"),
    ):
        for name, content in torn.items():
            (half / name).write_bytes(content)
        assert keep_beside(registry.uri, version, ITEMS_FOLDER, half)
        capsys.readouterr()
        assert ran(registry) == 1 and registry.champion == first
        assert f"the champion has no items of its evaluation to be compared by ({why}); `python" in capsys.readouterr().out
    order: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        upload = MlflowClient.log_model_artifact
        patch.setattr(
            MlflowClient, "log_model_artifact", lambda client, *line: (order.append(Path(line[1]).name), upload(client, *line))
        )
        for _ in range(2):
            assert keep_beside(registry.uri, version, ITEMS_FOLDER, items)
    assert order[-1] == "manifest.json" and sorted(order) == sorted(whole), "once, the manifest last"
    assert ran(registry) == 0 and registry.champion != first


def test_a_version_that_is_not_there_is_one_sentence(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    for line, said in (
        (["7"], "has no version 7 in"),
        (["best"], "has no version with the alias 'best'"),
        (["--set", "register.tolerance=2.0"], "bad configuration"),
    ):
        assert ran(registry, *line) == (2 if said == "bad configuration" else 1)
        told = capsys.readouterr().err
        assert said in told and told.count("\n") == 1, told
    with pytest.raises(SystemExit, match="2"):
        ran(registry, "--roll-back", "7")


def test_wherever_it_is_killed_one_version_is_champion(registry: Registry) -> None:
    first, second = registry.register(370), registry.register(380)
    ran(registry, first)

    def killed(line: str, *attempts: tuple[int, str]) -> None:
        """attempts: before which write each is killed, and the champion then. The last one is left to end, twice."""
        for number, expected in attempts:
            assert killed_before_write(number, registry.folder, registry.uri, registry.arguments(line)) == -9
            assert registry.champion == expected, (line, number)
        assert [ran(registry, line), ran(registry, line)] == [0, 0]

    killed(second, (1, first), (2, first))
    assert (registry.champion, registry.history()) == (second, {first: "the first", second: f"promoted over {first}"})
    # Each goes on where the one before was killed: after the note, after the alias, before the last note.
    killed("--roll-back", (1, second), (2, second), (2, first), (1, first))
    back = {first: f"restored from {second}", second: f"rolled back to {first}"}
    assert (registry.champion, registry.history()) == (first, back)
