"""A clone takes what another pushed, as docs/sharing.md says, and runs nothing again."""

from __future__ import annotations

import pytest

from tests.pages.commands import ROOT, blocks_of
from tests.pages.own_corpus import OwnCorpus
from tests.pages.project import make_environment, ran, stages_run

PAGE = ROOT / "docs/sharing.md"
PROMPT = "number 1 is a red square on the left"


@pytest.mark.timeout(1800)
def test_a_clone_takes_what_was_pushed_and_runs_nothing(own_corpus: OwnCorpus) -> None:
    """The clone has no pictures, which the project's git leaves out here as a corpus of any size."""
    project = own_corpus.project
    send, take = blocks_of(PAGE.read_text(), language="")
    (project / ".git/info/exclude").write_text("/pictures/\n")
    ran(project, "git config user.name me", "git config user.email me@example.org", *send.splitlines())
    ran(project, "git clone -q . ../clone")
    clone = project.with_name("clone")
    make_environment(clone)
    activate, pull, repro = take.splitlines()
    ran(clone, activate, "dvc pull artifacts/bundle", f"python -m export.ask '{PROMPT}' -o asked.png")
    assert stages_run(ran(clone, activate, "dvc pull inputs", "dvc repro --pull --allow-missing")) == ["inputs"]
    said = ran(clone, activate, pull, repro)
    assert not (clone / "pictures").exists()
    assert stages_run(said) == ["inputs"] and "The results made from it earlier are kept" in said
    assert ran(clone, "git status --porcelain").split() == ["??", "asked.png"]
