"""A file that params.yaml names, and that changed in any way, makes its stage run again, and no other."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import pyarrow as pa
import pytest

from components.data.ingest.corpora import collect
from components.training.autoencoder.perceptual import load_lpips
from components.training.autoencoder.pretrained import load_pretrained
from core.errors import BadInput
from pipelines import infer, inputs, paths, stage
from pipelines.params import load
from pipelines.sections import Params
from tests.components.data.corpora import IMAGE_STRUCT, pairs, picture, tar_bytes, write_jsonl, write_parquet
from tests.components.data.ingest.readers.test_s3 import endpoint, put
from tests.faults.bytes import run_dvc
from tests.faults.repro import project, set_params

ROOT = Path(__file__).parents[2]
LONG_AGO_NS = 10**18 + 123_456_789
CORPORA = [
    {"name": "tars", "format": "webdataset", "path": "given/tars/{a,b}*.tar"},
    {"name": "tables", "format": "parquet", "path": "given/tables"},
    {"name": "coco", "format": "coco", "path": "given/coco.json", "images": "given/coco"},
    {"name": "pages", "format": "obelics", "path": "given/pages/*.jsonl", "images": "given/pages/images"},
    {"name": "mmc4", "format": "mmc4", "path": "given/mmc4/a.jsonl", "images": "given/coco"},
    {"name": "lines", "format": "jsonl", "path": "given/lines"},
    {"name": "photos", "format": "image_folder", "path": "given/photos*"},
]


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
    Watched("given/asked.jsonl", "infer", ("requests",)),
    Watched("given/pictures/a.png", "infer", ("pictures",)),
]


def touch(path: Path) -> None:
    os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS + 1))


def change(path: Path) -> None:
    """In place, to as many bytes: the last one, which no format here looks at."""
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if path.suffix not in (".json", ".jsonl") else content)


def grow(path: Path) -> None:
    """By a byte, under the old time, as a copy that keeps times does."""
    times = path.stat()
    path.write_bytes(path.read_bytes() + b"\n")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


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


def write_given() -> None:
    """A corpus of each kind, an autoencoder's folder, and requests; all of it is old."""
    for name in ("a1", "a2", "b1"):
        write(f"given/tars/{name}.tar", tar_bytes(pairs(range(2))))
    table = Path("given/tables/part")
    table.mkdir(parents=True)
    images = pa.array([{"bytes": picture(0), "path": None}], IMAGE_STRUCT)
    write_parquet(table / "a.parquet", image=images, text=["a caption"])
    write_jsonl(Path("given/coco.json"), [{"images": [{"id": 1, "file_name": "0.png"}], "annotations": []}])
    for name in ("pages/a", "mmc4/a", "lines/a", "lines/b"):
        Path(f"given/{name}").parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(Path(f"given/{name}.jsonl"), [{"text": "a line"}])
    for name in ("tables/part/images/beside", "coco/train/0", "photos-1/deep/a", "photos-2/c", "pictures/a", "pictures/b"):
        write(f"given/{name}.png", picture(0))
    write("given/pages/images/0.webp", picture(1))
    write("given/photos-1/deep/a.txt", b"a caption")
    for folder in ("more", "other"):
        write(f"elsewhere/{folder}/b.png", picture(2))
    Path("given/photos-2/linked").symlink_to(Path("elsewhere/more").absolute())
    write("given/vae/config.json", b"{}")
    write("given/vae/nested/weights.safetensors", b"weights")
    asked = [{"id": name, "task": "image_to_text", "image": f"pictures/{name}.png"} for name in ("a", "none")]
    write_jsonl(Path("given/asked.jsonl"), asked)
    for folder in ("given", "elsewhere"):
        for path in Path(folder).rglob("*"):
            os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))


def write(name: str, content: bytes) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(content)


def given(*more: str) -> Params:
    corpora = json.dumps(CORPORA)
    settings = [f"ingest.corpora={corpora}", "autoencoder.pretrained=given/vae", "infer.requests=given/asked.jsonl"]
    return load(ROOT / "params.yaml", [*settings, *more])


def look(params: Params) -> dict[str, dict[str, Any]]:
    """What stands in data/inputs afterwards, by stage."""
    inputs.main(params)
    return {path.stem: json.loads(path.read_text()) for path in paths.INPUTS.iterdir()}


def differing(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> set[tuple[str, str]]:
    everything = {(name, key) for name, entries in before.items() for key in entries}
    assert everything == {(name, key) for name, entries in after.items() for key in entries}
    return {(name, key) for name, key in everything if before[name][key] != after[name][key]}


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    monkeypatch.chdir(tmp_path)
    write_given()
    return given()


def test_nothing_changed(params: Params) -> None:
    before = look(params)
    assert set(before) == {"ingest", "autoencoder", "infer"}
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
    if how == "removed" and watched.file in ("given/coco.json", "given/mmc4/a.jsonl", "given/asked.jsonl"):
        Path(watched.file).unlink()
        assert not differing(before, look(params)), "the named path itself is away: what was made of it stands"
        return
    if how == "removed" and watched.file in ("given/tables/part/a.parquet", "given/pages/a.jsonl"):
        shutil.copy(watched.file, Path(watched.file).with_stem("another"))
    CHANGES[how](Path(watched.file))
    assert differing(before, look(params)) == {(watched.stage, key) for key in watched.keys}


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
    assert look(load(ROOT / "params.yaml")) == {"ingest": {}, "autoencoder": {}, "infer": {}}


def said(work: Callable[[], object]) -> str:
    with pytest.raises(BadInput) as refused:
        work()
    return str(refused.value)


def test_a_missing_path_is_refused_as_its_stage_refuses_it(params: Params) -> None:
    none = given(f"ingest.corpora={json.dumps([CORPORA[0] | {'path': 'given/none'}])}")
    assert said(lambda: inputs.main(none)) == said(lambda: collect(none.ingest, paths.DOCUMENTS, Path("quarantine")))
    none = given("autoencoder.pretrained=given/none")
    assert said(lambda: inputs.main(none)) == said(lambda: load_pretrained(Path("given/none"), 32))
    none = given('autoencoder.pretrained=""', "autoencoder.loss.lpips_weights=given/none")
    assert said(lambda: inputs.main(none)) == said(lambda: load_lpips(Path("given/none")))
    none = given("infer.requests=given/none.jsonl")
    assert said(lambda: inputs.main(none)) == said(lambda: infer.main(none))


@pytest.mark.parametrize("away", ["given/photos-1", "given/coco", "given/asked.jsonl", "given/vae"])
def test_what_is_away_stands_as_it_was_found(away: str, params: Params, capsys: pytest.CaptureFixture[str]) -> None:
    """As in a clone that took the results from DVC's remote; the corpora are asked for when ingest must run again."""
    one_folder = CORPORA[6] | {"path": "given/photos-1"}
    params = given(f"ingest.corpora={json.dumps([*CORPORA[:6], one_folder])}")
    before = look(params)
    Path(away).rename("elsewhere/away")
    touch(Path("given/lines/a.jsonl"))
    capsys.readouterr()
    assert differing(before, look(params)) == {("ingest", "lines path")}, "what is here is still looked at"
    name = {"given/asked.jsonl": "infer", "given/vae": "autoencoder"}.get(away, "ingest")
    said = capsys.readouterr().out
    assert f"The results made from it earlier are kept; it is needed only when {name} has to run again" in said


def two_corpora(first: str, second: str = "given/lines") -> Params:
    corpora = json.dumps([CORPORA[5] | {"name": name, "path": path} for name, path in (("first", first), ("lines", second))])
    return load(ROOT / "params.yaml", [f"ingest.corpora={corpora}"])


@pytest.mark.parametrize(("path", "away"), [("given/pages/*.jsonl", ""), ("given/mmc4", "given/mmc4")])
def test_a_folder_that_is_here_and_empty_is_refused_whatever_else_is_away(path: str, away: str, params: Params) -> None:
    params = two_corpora(path)
    look(params)
    if away:
        Path(away).rename("elsewhere/away")
    for file in Path("given/lines").iterdir():
        file.unlink()
    with pytest.raises(BadInput, match=r"the corpus 'lines' has no .* files at given/lines"):
        inputs.main(params)


def test_a_glob_is_away_with_its_folder_alone(params: Params) -> None:
    params = two_corpora("given/pages/*.jsonl")
    before = look(params)
    Path("given/pages").rename("elsewhere/away")
    for file in Path("given/lines").iterdir():
        grow(file)
    assert differing(before, look(params)) == {("ingest", "lines path")}
    Path("given/pages").mkdir()
    with pytest.raises(BadInput, match=r"the corpus 'first' has no .* files at given/pages/\*.jsonl"):
        inputs.main(params)


def test_what_is_pushed_names_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server with signed addresses that is gone afterwards: its entry is found again by the address without secrets."""
    monkeypatch.chdir(tmp_path)
    write("served/lines.jsonl", b'{"text": "a line"}')
    handler = partial(SimpleHTTPRequestHandler, directory="served")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{server.server_port}"
        signed = f"http://me:s3cret@{host}/lines.jsonl?X-Amz-Signature=abc123"
        params = two_corpora(signed, signed)
        before = look(params)
        server.shutdown()
    assert before["ingest"]["first path"]["at"] == f"http://{host}/lines.jsonl?X-Amz-Signature=***"
    assert not any(secret in (paths.INPUTS / "ingest.json").read_text() for secret in ("s3cret", "abc123"))
    assert not differing(before, look(params))


def test_what_is_away_stands_for_the_same_paths_alone(params: Params) -> None:
    look(params)
    none = given(f"ingest.corpora={json.dumps([CORPORA[0] | {'path': 'given/none'}])}")
    with pytest.raises(BadInput, match=r"has no .* files at given/none"):
        inputs.main(none)
    none = given(f"ingest.corpora={json.dumps([CORPORA[2] | {'images': 'given/none'}])}")
    with pytest.raises(BadInput, match="no images folder at given/none"):
        inputs.main(none)
    Path("given/asked.jsonl").write_text("no request\n")
    with pytest.raises(BadInput, match="no usable request"):
        inputs.main(params)


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


def ran(result: subprocess.CompletedProcess[str]) -> list[str]:
    assert result.returncode == 0, result.stdout + result.stderr
    return [line.split("'")[1] for line in result.stdout.splitlines() if line.startswith("Running stage")]


def project_with_photos(work: Path) -> Path:
    """Its corpus is a folder of twelve pictures beside it."""
    project(work)
    for number in range(12):
        for ending, content in (("png", picture(number)), ("txt", f"caption {number}".encode())):
            (work / "photos").mkdir(exist_ok=True)
            (work / f"photos/{number}.{ending}").write_bytes(content)
    set_params(work / "params.yaml", {"ingest.corpora": [CORPORA[6] | {"path": "photos"}]})
    assert ran(run_dvc(work, "repro", "ingest")) == ["inputs", "ingest"]
    return work


@pytest.mark.timeout(300)
def test_dvc_runs_a_stage_again_whose_files_changed(tmp_path: Path) -> None:
    work = project_with_photos(tmp_path / "project")
    assert ran(run_dvc(work, "repro", "ingest")) == ["inputs"]
    (work / "photos/3.txt").write_bytes(b"caption 8")
    assert ran(run_dvc(work, "repro", "ingest")) == ["inputs", "ingest"]
    assert json.loads((work / "reports/ingest/counts.json").read_text())["corpora"]["photos"]["candidates"] == 12


@pytest.mark.timeout(300)
def test_what_was_pushed_is_pulled_without_its_corpus(tmp_path: Path) -> None:
    """Through a folder and through an object store; the clone has no more than git would bring: no pictures, no cache."""
    work = project_with_photos(tmp_path / "project")
    with endpoint("results"):
        for name, url in (("folder", str(tmp_path / "results")), ("store", "s3://results/dvc")):
            run_dvc(work, "remote", "add", "--force", "--default", "results", url)
            run_dvc(work, "push")
            clone = tmp_path / name
            shutil.copytree(work, clone, ignore=shutil.ignore_patterns("data", "photos", "cache", "tmp", ".work"))
            if name == "folder":
                run_dvc(clone, "pull", "inputs")
                assert ran(run_dvc(clone, "repro", "--pull", "--allow-missing", "ingest")) == ["inputs"]
                assert not (clone / "data/documents").exists(), "what nobody reads is not fetched"
            run_dvc(clone, "pull", "--with-deps", "ingest")
            assert "up to date" in run_dvc(clone, "status", "ingest").stdout
            again = run_dvc(clone, "repro", "ingest")
            assert ran(again) == ["inputs"]
            assert "the corpus 'photos' has no folder at" in again.stdout and "made from it earlier are kept" in again.stdout
            assert (clone / "dvc.lock").read_bytes() == (work / "dvc.lock").read_bytes()
        forced = run_dvc(clone, "repro", "--force", "ingest", check=False)
        assert forced.returncode and "the corpus 'photos' has no folder at" in forced.stderr
