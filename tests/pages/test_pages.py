"""What the pages tell a reader to type works, from a plain shell, in the project that the page on own corpora leaves behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.pages.commands import ACTIVATE, CHECKED, RUN, WITHOUT_ENVIRONMENT, blocks_of, commands, commands_of
from tests.pages.own_corpus import PAGE, OwnCorpus
from tests.pages.project import ended, ran, start


def as_the_page_says(page: Path, line: str) -> list[str]:
    """The command, after what the page tells to type before; a page that forgets to say so has a command that is not found."""
    needs = line.split()[0] not in WITHOUT_ENVIRONMENT
    return [*([ACTIVATE] if needs and ACTIVATE in commands_of(page.read_text()) else []), line]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("line", RUN)
def test_a_command_of_the_pages_runs(own_corpus: OwnCorpus, line: str) -> None:
    pages = {command.page for command in commands() if command.line == line}
    assert pages, f"no page says {line} any more"
    for page in pages:
        assert as_the_page_says(page, line)[:-1] == as_the_page_says(next(iter(pages)), line)[:-1], f"{page} says less"
    ran(own_corpus.project, *as_the_page_says(next(iter(pages)), line))


@pytest.mark.timeout(1800)
def test_prompts_of_ones_own_are_answered(own_corpus: OwnCorpus) -> None:
    project = own_corpus.project
    *_, asking, of_lines = blocks_of(PAGE.read_text(), language="")
    (project / "pictures/0001.jpg").write_bytes((project / "pictures/0001.png").read_bytes())
    ran(project, *asking.splitlines(), *of_lines.splitlines())
    assert Image.open(project / "cat.png").size == (64, 64)
    results = [json.loads(line) for line in (project / "artifacts/predictions/results.jsonl").read_text().splitlines()]
    assert {result["id"] for result in results} == {"cat", "first"}


@pytest.mark.parametrize("probe", sorted({checked.probe for checked in CHECKED.values()}))
def test_a_command_that_takes_long_exists(own_corpus: OwnCorpus, probe: str) -> None:
    said = ran(own_corpus.project, ACTIVATE, probe)
    for checked in CHECKED.values():
        if checked.probe == probe:
            assert not [words for words in checked.says if words not in said], said[-2000:]


def test_python_is_not_found_before_the_page_says_so(own_corpus: OwnCorpus) -> None:
    """Or the test of the commands would find what a reader does not."""
    if shutil.which("dvc", path="/usr/bin:/bin"):
        pytest.skip("this system has a dvc of its own")
    assert ended(start(own_corpus.project, "dvc status")).code == 127
