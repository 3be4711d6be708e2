"""A bundle goes up whole, in one commit, by huggingface_hub's own code; what cannot be is one sentence, and changes nothing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from huggingface_hub import HfApi, constants

from core.errors import BadInput
from core.manifest import write_manifest
from export.bundle import open_bundle
from export.push_to_hub import check_card, main, prepare
from tests.export.conftest import Made
from tests.export.hub_server import Hub, Repository, serving

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "hf_made_up"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """With a token in the environment. What huggingface_hub reads once from there is set where it keeps it."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    # Xet's protocol is a library in Rust with servers of its own; without it large files go by Git LFS.
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with serving("me", TOKEN) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template.replace("https://huggingface.co", hub.url))
        yield hub


class Refusal(NamedTuple):
    """Takes the one sentence from the command's streams."""

    streams: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> str:
        self.streams.readouterr()
        assert main(arguments) == 1
        said = self.streams.readouterr().err
        assert said.count("\n") == 1 and TOKEN not in said, said
        return said


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Refusal:
    return Refusal(capsys)


def test_a_bundle_goes_up_in_one_commit(made: Made, hub: Hub, tmp_path: Path, refusal: Refusal) -> None:
    """By the command, in a process that knows the Hub by its environment."""
    model = ["--repo", "me/digits", "--model", str(made.bundle.folder)]
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "export.push_to_hub", *model, "--private"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    repository = hub.repositories["me/digits"]
    assert repository.private and repository.commits == 2
    assert f"{hub.url}/me/digits/commit/{repository.head}" in done.stdout
    there = tmp_path / "there"
    for name, content in repository.files.items():
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_bytes(content)
    assert open_bundle(there).manifest == made.bundle.manifest, "what is there opens as the bundle"
    assert set(repository.files) == {*made.bundle.manifest["files"], "manifest.json"}
    assert hub.large, "some files are large enough for Git LFS"
    assert main(model) == 0 and repository.commits == 2, "the same bundle is there already"
    _as_if_it_had_been_of_two_more_files(repository)
    assert main(model) == 0 and repository.commits == 3
    assert set(repository.files) == {*made.bundle.manifest["files"], "manifest.json", "picture.png"}
    repository.private = False
    assert "me/digits is public, and --private was asked for" in refusal(*model, "--private")


def _as_if_it_had_been_of_two_more_files(repository: Repository) -> None:
    """The bundle there, one of which somebody has deleted by hand; and a file that no bundle lists."""
    manifest = json.loads(repository.files["manifest.json"])
    manifest["files"] |= dict.fromkeys(("decoder.engine", "by hand.onnx"), manifest["files"]["README.md"])
    repository.files["manifest.json"] = json.dumps(manifest).encode()
    repository.files |= {"decoder.engine": b"of an earlier bundle", "picture.png": b"somebody's own"}


def test_a_dry_run_checks_and_sends_nothing(
    copied: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, refusal: Refusal, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    (copied / "notes.txt").write_text("not the model's")
    model = ["--repo", "me/digits", "--model", str(copied), "--dry-run"]
    assert main(model) == 0
    said = capsys.readouterr().out
    assert "model.safetensors" in said and "manifest.json" in said and "notes.txt" not in said
    assert "nothing was sent to me/digits" in said and not hub.asked
    content = bytearray((copied / "step.onnx").read_bytes())
    content[-1] ^= 1
    (copied / "step.onnx").write_bytes(content)
    assert "step.onnx does not have the bytes its manifest lists" in refusal(*model)
    assert "artifacts/none" in refusal("--repo", "me/digits", "--model", "artifacts/none")


def test_what_the_hub_does_not_take_is_one_sentence(
    made: Made, hub: Hub, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    model = ["--model", str(made.bundle.folder), "--repo"]
    monkeypatch.delenv("HF_TOKEN")
    assert "there is no token for the Hub; make one" in refusal(*model, "me/digits")
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    assert "does not know this token" in refusal(*model, "me/digits")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert "may not write to you/digits (You don't have the rights" in refusal(*model, "you/digits")
    assert "name the owner too, as in me/digits" in refusal(*model, "digits")
    assert "--repo:" in refusal(*model, "me/a digit")
    hub.repositories["me/digits"] = repository = Repository(private=False)
    hub.refused = {"/commit/": (412, "A commit has happened since.")}
    assert "somebody else changed me/digits meanwhile" in refusal(*model, "me/digits")
    hub.refused, hub.large = {"/large/": (403, "The storage is full.")}, {}
    assert "The storage is full." in refusal(*model, "me/digits")
    hub.refused = {"/repos/create": (409, "You already created this model repo")}
    assert "me/hidden is there already, and this token may not see it" in refusal(*model, "me/hidden")
    hub.refused = {"/validate-yaml": (400, "")}
    assert "the Hub refuses the card's front matter" in refusal(*model, "me/digits")
    assert not repository.files and repository.commits == 1, "all of it, or nothing"


def test_a_hub_that_is_away_is_one_sentence(made: Made, hub: Hub, monkeypatch: pytest.MonkeyPatch, refusal: Refusal) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", url)
        said = refusal("--repo", "me/digits", "--model", str(made.bundle.folder))
        assert f"{url} cannot be reached" in said and "Nothing was changed there" in said


def test_a_line_that_breaks_while_files_go_up(made: Made, hub: Hub, monkeypatch: pytest.MonkeyPatch, refusal: Refusal) -> None:
    """By then the repository has been made, and that is not denied. The error is as hf-xet's are."""

    def breaks(*_: object, **__: object) -> None:
        raise RuntimeError("Data processing error: Connection reset")

    monkeypatch.setattr(HfApi, "create_commit", breaks)
    said = refusal("--repo", "me/digits", "--model", str(made.bundle.folder))
    assert "could not be sent to" in said and "Nothing was changed" not in said and "push again" in said
    assert "me/digits" in hub.repositories


@pytest.mark.parametrize(
    ("old", "new", "lacks"),
    [
        ("license: apache-2.0\n", "", "license"),
        ("pipeline_tag:", "pipeline_tags:", "pipeline_tag"),
        ("---\n", "", "license, lib"),
    ],
)
def test_a_card_that_the_hub_cannot_use_stays_here(copied: Path, old: str, new: str, lacks: str) -> None:
    card = copied / "README.md"
    card.write_text(card.read_text().replace(old, new))
    with pytest.raises(BadInput, match=f"README.md: its front matter lacks {lacks}"):
        check_card(card)
    (copied / "manifest.json").unlink()
    write_manifest(copied, kind="bundle")
    with pytest.raises(BadInput, match="front matter"):
        prepare(copied)
