"""A file that params.yaml names, and that changed in any way, makes its stage run again, and no other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from core.errors import BadInput
from pipelines import inputs, paths, stage
from pipelines.params import load
from pipelines.sections import Params
from tests.components.data.corpora import picture
from tests.components.data.ingest.readers.test_s3 import endpoint, put
from tests.pipelines.given_inputs import CORPORA, ROOT, differing, given, grow, look, params, touch, write

__all__ = ["params"]  # the fixture


class Watched(NamedTuple):
    """One file that is read. stage, keys: the entries of data/inputs that are to change with it."""

    file: str
    stage: str
    keys: tuple[str, ...]


WATCHED = [
    Watched("given/tars/a1.tar", "ingest", ("tars path",)),
    Watched("given/tables/part/a.parquet", "ingest", ("tables path",)),
    Watched("given/tables/part/images/beside.png", "ingest", ("tables beside",)),
    Watched("given/coco.json", "ingest", ("coco path",)),
    Watched("given/coco/train/0.png", "ingest", ("coco images", "mmc4 images")),
    Watched("given/pages/a.jsonl", "ingest", ("pages path",)),
    Watched("given/pages/images/0.webp", "ingest", ("pages images",)),
    Watched("given/mmc4/a.jsonl", "ingest", ("mmc4 path",)),
    Watched("given/lines/a.jsonl", "ingest", ("lines path",)),
    Watched("given/photos-1/deep/a.png", "ingest", ("photos path",)),
    Watched("given/photos-1/deep/a.txt", "ingest", ("photos path",)),
    # By way of a linked folder.
    Watched("elsewhere/more/b.png", "ingest", ("photos path",)),
    Watched("given/vae/config.json", "autoencoder", ("pretrained",)),
    Watched("given/vae/nested/weights.safetensors", "autoencoder", ("pretrained",)),
    Watched("given/words.json", "ingest", ("tokenizer",)),
    Watched("given/start/model.safetensors", "train", ("pretrained",)),
    Watched("given/start/autoencoder/config.json", "train", ("pretrained",)),
    Watched("given/inception.pt", "evaluate", ("inception",)),
    Watched("given/clip/model.safetensors", "evaluate", ("clip",)),
    Watched("given/asked.jsonl", "infer", ("requests",)),
    Watched("given/pictures/a.png", "infer", ("pictures",)),
]


def change(path: Path) -> None:
    """In place, to as many bytes: the last one, which no format here looks at."""
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if path.suffix not in (".json", ".jsonl") else content)


def replace_by_link(path: Path) -> None:
    """By a link to a file of the same size and time."""
    other = Path("elsewhere") / f"copy-{path.name}"
    shutil.copy2(path, other)
    path.unlink()
    path.symlink_to(other.absolute())


CHANGES: dict[str, Callable[[Path], None]] = {
    "touched": touch,
    "changed in place": change,
    "grown": grow,
    "removed": Path.unlink,
    "linked": replace_by_link,
}


def test_nothing_changed(params: Params) -> None:
    before = look(params)
    assert set(before) == {"ingest", "autoencoder", "train", "evaluate", "infer"}
    assert before["ingest"]["tars path"]["files"] == 3
    assert before["ingest"]["photos path"]["files"] == 4
    assert not differing(before, look(params))


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("watched", WATCHED, ids=lambda watched: watched.file)
def test_what_changed_is_seen_where_it_is_read(watched: Watched, how: str, params: Params) -> None:
    before = look(params)
    if how == "removed" and watched.file == "given/vae/config.json":
        Path(watched.file).unlink()
        with pytest.raises(BadInput):  # the folder is here, and holds no autoencoder
            inputs.main(params)
        return
    named = ("given/coco.json", "given/mmc4/a.jsonl", "given/asked.jsonl", "given/inception.pt", "given/words.json")
    if how == "removed" and watched.file in named:
        Path(watched.file).unlink()
        assert not differing(before, look(params)), "the named path itself is away: what was made of it stands"
        return
    if how == "removed" and watched.file in ("given/tables/part/a.parquet", "given/pages/a.jsonl"):
        shutil.copy(watched.file, Path(watched.file).with_stem("another"))
    CHANGES[how](Path(watched.file))
    assert differing(before, look(params)) == {(watched.stage, key) for key in watched.keys}


def test_weights_that_the_evaluation_can_do_without_may_be_missing_and_are_seen_when_they_come(params: Params) -> None:
    shutil.move("given/clip", "given/later")
    before = look(params)
    assert before["evaluate"]["clip"]["files"] == 0 and before["evaluate"]["inception"]["files"] == 1
    assert not differing(before, look(params))
    shutil.move("given/later", "given/clip")
    assert differing(before, look(params)) == {("evaluate", "clip")}


@pytest.mark.parametrize(
    ("added", "key"),
    [
        ("given/tars/b2.tar", "tars path"),
        ("given/tables/z/late.parquet", "tables path"),
        ("given/tables/part/late.jpg", "tables beside"),
        ("given/pages/b.jsonl", "pages path"),
        ("given/pages/images/deep/late.png", "pages images"),
        ("given/lines/c.jsonl", "lines path"),
        ("given/photos-3/late.png", "photos path"),
        ("elsewhere/more/late.png", "photos path"),
    ],
)
def test_what_was_added_is_seen(added: str, key: str, params: Params) -> None:
    before = look(params)
    write(added, b"late")
    assert differing(before, look(params)) == {("ingest", key)}


def test_a_picture_that_a_request_waits_for_is_seen(params: Params) -> None:
    before = look(params)
    write("given/pictures/none.png", picture(3))
    assert differing(before, look(params)) == {("infer", "pictures")}


def test_another_target_of_a_link_is_seen(params: Params) -> None:
    """Of the same names, sizes and times."""
    before = look(params)
    link = Path("given/photos-2/linked")
    link.unlink()
    link.symlink_to(Path("elsewhere/other").absolute())
    assert differing(before, look(params)) == {("ingest", "photos path")}


def test_what_is_not_read_is_not_seen(params: Params) -> None:
    before = look(params)
    for name in (
        "given/tars/c1.tar",
        "given/tars/notes.txt",
        "given/pictures/unasked.png",
        "given/.hidden.png",
        "data/latents/a.png",
    ):
        write(name, b"more")
    assert not differing(before, look(params))


def test_what_the_graph_writes_is_no_corpus_beside_one(params: Params) -> None:
    write("here.jsonl", b'{"text": "a line"}')
    corpora = json.dumps([CORPORA[5] | {"path": "here.jsonl"}])
    at_the_root = load(ROOT / "params.yaml", [f"ingest.corpora={corpora}"])
    before = look(at_the_root)
    for folder in (paths.PREDICTIONS / "images", paths.REPORTS / "evaluate", paths.REQUESTS / "images"):
        write(f"{folder}/a.png", b"more")
    assert not differing(before, look(at_the_root))
    write("pictures/a.png", b"more")
    assert differing(before, look(at_the_root)) == {("ingest", "lines beside")}


def test_the_demonstration_does_not_depend_on_a_machines_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write("data/requests/requests.jsonl", b"{}")
    assert look(load(ROOT / "params.yaml")) == {"ingest": {}, "autoencoder": {}, "train": {}, "evaluate": {}, "infer": {}}


def test_weights_are_seen(params: Params) -> None:
    write("given/lpips/vgg.pth", b"weights")
    weights = given('autoencoder.pretrained=""', "autoencoder.loss.lpips_weights=given/lpips")
    before = look(weights)
    write("given/lpips/other.pth", b"weights")
    assert differing(before, look(weights)) == {("autoencoder", "lpips_weights")}


def test_a_store_is_watched_by_what_it_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stage, "die_with_parent", lambda: None)  # the parent is the test run, which outlives the test
    with endpoint("watched") as server:
        for name in ("tars/a.tar", "tars/b.tar", "coco/captions.json", "coco/train/0.png"):
            put(f"s3://watched/{name}", b"first")
        corpora = [
            CORPORA[0] | {"path": "s3://watched/tars"},
            CORPORA[2] | {"path": "s3://watched/coco/captions.json", "images": "s3://watched/coco/train"},
        ]
        params = load(ROOT / "params.yaml", [f"ingest.corpora={json.dumps(corpora)}"])
        before = look(params)
        put("s3://watched/tars/a.tar", b"first")
        assert not differing(before, look(params)), "the same content again is no change"
        for name, content, key in (
            ("tars/a.tar", b"other", "tars path"),
            ("tars/late.tar", b"late", "tars path"),
            ("coco/captions.json", b"other", "coco path"),
            ("coco/train/deep/late.png", b"late", "coco images"),
        ):
            put(f"s3://watched/{name}", content)
            after = look(params)
            assert differing(before, after) == {("ingest", key)}, name
            before = after
        server.stop()
        capfd.readouterr()
        assert stage.execute("inputs", lambda: inputs.main(params)) == 0
        assert "cannot be listed at s3://watched/tars" in capfd.readouterr().out
        (paths.INPUTS / "ingest.json").unlink()
        assert stage.execute("inputs", lambda: inputs.main(params)) == 1
        refusal = capfd.readouterr().err
        assert refusal.count("\n") == 1
        assert "the corpus 'tars' cannot be listed at s3://watched/tars" in refusal
