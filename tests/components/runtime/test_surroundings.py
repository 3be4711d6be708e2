"""A stage runs where libraries find less than they expect: a user without a name, few open files."""

from __future__ import annotations

import getpass
import logging
import os
import resource
import sys
import threading
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


NATIVE = b"[2026-11-28 12:00:00,123 E 12 345] logging.cc:303: a line of C++\n"


def test_native_lines_are_dropped_inside_the_block_alone(capfd: pytest.CaptureFixture[str]) -> None:
    os.write(2, b"before\n" + NATIVE)
    with surroundings.native_lines_dropped():
        os.write(2, NATIVE + b"I0000 00:00:1764331200.123456   12 chttp2.cc:1] a line of gRPC\n")
        os.write(2, b"terminate called\n" + NATIVE.replace(b" E ", b" F "))
    os.write(2, b"after\n")
    fatal = NATIVE.replace(b" E ", b" F ").decode()
    assert capfd.readouterr().err == f"before\n{NATIVE.decode()}terminate called\n{fatal}after\n"


def test_our_own_sentences_are_seen_at_once(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by a handler that was made inside the block and is used after it."""
    with open(2, "w", buffering=1, closefd=False) as standard:
        monkeypatch.setattr(sys, "stderr", standard)
        with surroundings.native_lines_dropped():
            thread = threading.Thread(target=print, args=("tracking: the store",), kwargs={"file": sys.stderr})
            thread.start()
            thread.join()
            assert capfd.readouterr().err == "tracking: the store\n"
            handler = logging.StreamHandler()
        assert sys.stderr is standard
        handler.handle(logging.makeLogRecord({"msg": "later"}))
        assert capfd.readouterr().err == "later\n"


def test_an_exception_brings_the_native_lines_too(capfd: pytest.CaptureFixture[str]) -> None:
    standard = sys.stderr

    def fails() -> None:
        os.write(2, NATIVE)
        raise BadInput("no Ray")

    with pytest.raises(BadInput), surroundings.native_lines_dropped():
        fails()
    os.write(2, b"after\n")
    assert capfd.readouterr().err == f"{NATIVE.decode()}after\n" and sys.stderr is standard


def test_blocks_leave_no_descriptor_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with surroundings.native_lines_dropped():
            pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before
