"""One copy of the repository for all files here, in whose order it is used: the demonstration, an own corpus, commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pages.own_corpus import OwnCorpus, follow_the_page
from tests.pages.project import fresh_copy, make_environment


@pytest.fixture(scope="session")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a clone is after `make setup`."""
    project = fresh_copy(tmp_path_factory.mktemp("pages") / "repository")
    make_environment(project)
    return project


@pytest.fixture(scope="session")
def own_corpus(copy: Path) -> OwnCorpus:
    """After steps 1 to 3 of docs/own-corpus.md."""
    return follow_the_page(copy)
