"""What the pages tell a reader to type works, from a plain shell: the page on own corpora step by step, the others by command.

One project serves all of it: a fresh copy of the repository, made and used as docs/own-corpus.md says, with few training steps.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from core.png import encode_png
from tests.faults.repro import TWELVE_STEPS, set_params
from tests.pages.commands import ACTIVATE, CHECKED, ROOT, RUN, WITHOUT_ENVIRONMENT, blocks_of, commands, commands_of, leaves
from tests.pipelines.test_whole_graph import fresh_copy

PAGE, SHARING = ROOT / "docs/own-corpus.md", ROOT / "docs/sharing.md"
PROMPT = "number 1 is a red square on the left"
NUM_PICTURES = 300
# Beside what the page says, for a minute instead of an hour; the gates are the page's, but for what twelve steps cannot reach.
FEW_STEPS: dict[str, Any] = TWELVE_STEPS | {
    "ingest.vocab_size": 400,
    "train.model.preset": "tiny",
    # The tiny autoencoder halves a side once less than the page's.
    "train.model.patch_side": 8,
    "train.batch_rows": 4,
    "train.max_steps": 8,
    "train.warmup_steps": 2,
    "train.sampling.num_steps": 2,
    "evaluate.num_seen_scenes": 4,
    "evaluate.num_kept_out_scenes": 4,
    "evaluate.num_captions": 4,
    "evaluate.num_loss_images": 8,
    "evaluate.num_solver_steps": 2,
    "infer.num_solver_steps": 2,
    "infer.max_new_tokens": 8,
}
COLOURS = {"red": (220, 30, 30), "green": (30, 180, 60), "blue": (40, 60, 220), "yellow": (230, 210, 40)}
PLACES = ("left", "right", "top", "bottom")


def plain_shell(project: Path, *lines: str) -> subprocess.CompletedProcess[str]:
    """The lines in a shell that knows a home and the system's programs, in the project's folder, until one fails."""
    home = project.parent / "home"
    home.mkdir(exist_ok=True)
    # One process of a kind: the stages' own tests have two of each.
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin", "TRANSFUSION_NUM_WORKERS": "1", "TRANSFUSION_NUM_ACTORS": "1"}
    return subprocess.run(
        ["/bin/bash", "-ec", "\n".join(lines)],
        cwd=project,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def ran(project: Path, *lines: str) -> str:
    """What the lines said; they must end well."""
    ended = plain_shell(project, *lines)
    said = ended.stdout + ended.stderr
    assert ended.returncode == 0, f"{lines[-1]}: exit code {ended.returncode}\n{said[-4000:]}"
    return said


def as_the_page_says(page: Path, line: str) -> list[str]:
    """The command, after what the page tells to type before; a page that forgets to say so has a command that is not found."""
    needs = line.split()[0] not in WITHOUT_ENVIRONMENT
    return [*([ACTIVATE] if needs and ACTIVATE in commands_of(page.read_text()) else []), line]


def write_pictures(folder: Path) -> None:
    """Squares of a colour at a place, captioned; noise around them, so that no two are alike."""
    folder.mkdir()
    generator = np.random.default_rng(24)
    for number in range(NUM_PICTURES):
        colour, place = list(COLOURS)[number % 4], PLACES[number // 4 % 4]
        pixels = generator.integers(0, 60, (72, 80, 3), np.uint8)
        row, column = {"left": (24, 4), "right": (24, 52), "top": (4, 28), "bottom": (44, 28)}[place]
        pixels[row : row + 24, column : column + 24] = COLOURS[colour]
        (folder / f"{number + 1:04d}.png").write_bytes(encode_png(pixels))
        (folder / f"{number + 1:04d}.txt").write_text(f"number {number} is a {colour} square on the {place}\n")


def as_leaves_of(params: Path, changes: dict[str, Any]) -> dict[str, Any]:
    """`changes` by dotted names, each of which params.yaml has."""
    known = YAML(typ="safe").load(params.read_text())
    for dotted in changes:
        node = known
        for part in dotted.split("."):
            assert part in node, dotted
            node = node[part]
    return changes


def make_environment(project: Path) -> None:
    """.venv as make setup leaves it, but for the packages, which are this interpreter's: installing them takes minutes."""
    folder = project / ".venv"
    venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
    packages = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    (Path(packages) / "these.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    for name in ("dvc", "mlflow", "ray"):
        program = folder / "bin" / name
        program.write_text(f'#!/bin/sh\nexec "{folder}/bin/python" "{Path(sys.executable).parent / name}" "$@"\n')
        program.chmod(0o755)
    (folder / ".complete").touch()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository after steps 1 to 3 of the page."""
    project = fresh_copy(tmp_path_factory.mktemp("pages") / "repository", {})
    make_environment(project)
    write_pictures(project / "pictures")
    (wanted,) = blocks_of(PAGE.read_text(), language="yaml")
    params = project / "params.yaml"
    set_params(params, as_leaves_of(params, leaves(YAML(typ="safe").load(wanted))))
    set_params(params, FEW_STEPS)
    first, _ = blocks_of(PAGE.read_text(), language="")
    assert first == "make repro\n"
    print(ran(project, *first.splitlines()))
    return project


@pytest.mark.timeout(900)
def test_pictures_of_ones_own_become_answers(project: Path) -> None:
    requests = [json.loads(line) for line in (project / "data/requests/requests.jsonl").read_text().splitlines()]
    prompts = [request["prompt"] for request in requests if request["task"] == "text_to_image"]
    assert len(prompts) == 12 and all(re.fullmatch(r"number \d+ is a \w+ square on the \w+", prompt) for prompt in prompts)
    results = (project / "artifacts/predictions/results.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in results] == [request["id"] for request in requests]
    card = (project / "artifacts/bundle/README.md").read_text()
    assert "a caption as the corpus has them" in card and "red three" not in card
    version = json.loads((project / "reports/register/version.json").read_text())
    assert version["aliases"] == ["challenger", "champion"]
    for name in re.findall(r"`((?:reports|artifacts|data)/[\w./]+)`", PAGE.read_text()):
        assert (project / name).exists(), name


@pytest.mark.timeout(900)
def test_a_clone_takes_what_was_pushed_and_runs_nothing(project: Path) -> None:
    """As docs/sharing.md says; the clone has no pictures, which the project's git leaves out here as a corpus of any size."""
    send, take = blocks_of(SHARING.read_text(), language="")
    (project / ".git/info/exclude").write_text("/pictures/\n")
    ran(project, "git config user.name me", "git config user.email me@example.org", *send.splitlines())
    ran(project, "git clone -q . ../clone")
    clone = project.with_name("clone")
    make_environment(clone)
    activate, pull, repro = take.splitlines()
    ran(clone, activate, "dvc pull artifacts/bundle", f"python -m export.ask '{PROMPT}' -o asked.png")
    stages = re.compile(r"^Running stage '(.*)'", re.M)
    assert stages.findall(ran(clone, activate, "dvc pull inputs", "dvc repro --pull --allow-missing")) == ["inputs"]
    said = ran(clone, activate, pull, repro)
    assert not (clone / "pictures").exists()
    assert stages.findall(said) == ["inputs"] and "What was made of it before stands" in said
    assert ran(clone, "git status --porcelain").split() == ["??", "asked.png"]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("line", RUN)
def test_a_command_of_the_pages_runs(project: Path, line: str) -> None:
    pages = {command.page for command in commands() if command.line == line}
    assert pages, f"no page says {line} any more"
    for page in pages:
        assert as_the_page_says(page, line)[:-1] == as_the_page_says(next(iter(pages)), line)[:-1], f"{page} says less"
    ran(project, *as_the_page_says(next(iter(pages)), line))


@pytest.mark.timeout(900)
def test_prompts_of_ones_own_are_answered(project: Path) -> None:
    _, asking = blocks_of(PAGE.read_text(), language="")
    (project / "pictures/0001.jpg").write_bytes((project / "pictures/0001.png").read_bytes())
    ran(project, *asking.splitlines())
    results = [json.loads(line) for line in (project / "artifacts/predictions/results.jsonl").read_text().splitlines()]
    assert {result["id"] for result in results} == {"cat", "first"}


@pytest.mark.parametrize("probe", sorted({checked.probe for checked in CHECKED.values()}))
def test_a_command_that_takes_long_exists(project: Path, probe: str) -> None:
    said = ran(project, ACTIVATE, probe)
    for checked in CHECKED.values():
        if checked.probe == probe:
            assert not [words for words in checked.says if words not in said], said[-2000:]


def test_python_is_not_found_before_the_page_says_so(project: Path) -> None:
    """Or the test of the commands would find what a reader does not."""
    if shutil.which("dvc", path="/usr/bin:/bin"):
        pytest.skip("this system has a dvc of its own")
    assert plain_shell(project, "dvc status").returncode == 127
