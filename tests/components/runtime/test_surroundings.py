"""A stage runs where libraries find less than they expect: a user without a name, few open files."""

from __future__ import annotations

import getpass
import os
import resource
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.runtime import surroundings
from core.errors import BadInput


@pytest.fixture
def limit() -> Iterator[int]:
    """The hard limit of open files; the soft one is as before afterwards."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("none", [KeyError("getpwuid(): uid not found: 1000"), OSError("No username set in the environment")])
def test_a_user_without_a_name(none: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Python 3.11 and 3.13 say it."""

    def nobody() -> str:
        raise none

    monkeypatch.setenv("LOGNAME", "")
    with monkeypatch.context() as patch:
        patch.setattr(getpass, "getuser", nobody)
        surroundings.name_user()
    assert getpass.getuser() == str(os.getuid())


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "")
    with monkeypatch.context() as patch:
        patch.delenv("HOME")
        patch.setattr(os, "getuid", lambda: 2**31 - 2)
        surroundings.name_user()
        assert Path.home() == Path("/")


def test_a_user_with_a_name_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ada")
    surroundings.name_user()
    assert os.environ["LOGNAME"] == "ada"


def test_warnings_end_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        surroundings.keep_warnings_from_raising()
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert "PYTHONWARNINGS" not in os.environ


def test_few_open_files(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, limit))
    surroundings.allow_open_files()
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(limit, surroundings.WANTED_FILES)
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    with pytest.raises(BadInput, match="may open 64; raise the limit"):
        surroundings.allow_open_files()


def test_native_lines_are_dropped_inside_the_block_alone(capfd: pytest.CaptureFixture[str]) -> None:
    os.write(2, b"before\n")
    with surroundings.native_lines_dropped():
        os.write(2, b"[2026 I 1 1] logging.cc:303: a line of C++\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "before\nafter\n"
