"""What params.yaml names and is away stands as it was found; what was never there is refused. DVC does as it is told."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from benchmarks.faults.bytes import run_dvc
from benchmarks.faults.repro import project, set_params
from components.data.ingest.corpora import collect
from components.training.autoencoder.perceptual import load_lpips
from components.training.autoencoder.pretrained import load_pretrained
from core.errors import BadInput
from pipelines import infer, inputs, paths
from pipelines.params import load
from pipelines.sections import Params
from tests.components.data.corpora import picture
from tests.components.data.ingest.readers.test_s3 import endpoint
from tests.pipelines.given_inputs import CORPORA, ROOT, differing, given, grow, look, params, touch, write

__all__ = ["params"]  # the fixture


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


def ran(result: subprocess.CompletedProcess[str]) -> list[str]:
    assert result.returncode == 0, result.stdout + result.stderr
    return [line.split("'")[1] for line in result.stdout.splitlines() if line.startswith("Running stage")]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose corpus is a folder of twelve pictures beside it, as far as ingest."""
    work = project(tmp_path_factory.mktemp("photos") / "project")
    for number in range(12):
        for ending, content in (("png", picture(number)), ("txt", f"caption {number}".encode())):
            (work / "photos").mkdir(exist_ok=True)
            (work / f"photos/{number}.{ending}").write_bytes(content)
    set_params(work / "params.yaml", {"ingest.corpora": [CORPORA[6] | {"path": "photos"}]})
    assert ran(run_dvc(work, "repro", "ingest")) == ["inputs", "ingest"]
    return work


@pytest.mark.timeout(300)
def test_dvc_runs_a_stage_again_whose_files_changed(work: Path) -> None:
    assert ran(run_dvc(work, "repro", "ingest")) == ["inputs"]
    (work / "photos/3.txt").write_bytes(b"caption 8")
    assert ran(run_dvc(work, "repro", "ingest")) == ["inputs", "ingest"]
    assert json.loads((work / "reports/ingest/counts.json").read_text())["corpora"]["photos"]["candidates"] == 12


@pytest.mark.timeout(300)
def test_what_was_pushed_is_pulled_without_its_corpus(work: Path, tmp_path: Path) -> None:
    """Through a folder and through an object store; the clone has no more than git would bring: no pictures, no cache."""
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
