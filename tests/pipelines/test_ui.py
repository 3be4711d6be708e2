"""`make ui` looks for its port before it starts anything."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import BadInput
from pipelines.ui import show
from tests.pipelines.stage_process import REPOSITORY


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line, environment = (
            [sys.executable, "-m", "pipelines.ui", "--port", str(port)],
            os.environ | {"PYTHONPATH": str(REPOSITORY)},
        )
        ended = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1), ended.stderr
    assert f"port {port} is taken" in ended.stderr and "make ui PORT=" in ended.stderr
    assert not list(tmp_path.iterdir()), "no store is made for pages that are not shown"


@pytest.mark.parametrize("port", ["", "0", "65536", "x", "-1", "9" * 5000])
def test_what_is_no_port(port: str) -> None:
    with pytest.raises(BadInput, match="is no port"):
        show(port)


def test_make_hands_the_port_on() -> None:
    for given, wanted in (({}, "5000"), ({"PORT": "5001"}, "5001")):
        line = ["make", "-n", "-C", str(REPOSITORY), "ui", *(f"{name}={value}" for name, value in given.items())]
        said = subprocess.run(line, capture_output=True, text=True, check=True).stdout
        assert f"-m pipelines.ui --port {wanted}\n" in said
