"""A store that cannot be used is refused in one sentence that says which, why and what to do, and soon."""

from __future__ import annotations

import functools
import http.server
import os
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from components.runtime.recording import open_run
from components.runtime.registry import find_version, set_alias, version_of
from components.runtime.surroundings import keep_proxy_from_loopback
from components.runtime.tracking_store import client_of
from core.errors import BadInput


@pytest.fixture(autouse=True)
def project(store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    return store


class Refusing(http.server.BaseHTTPRequestHandler):
    """A gate before a store, as companies have them: it answers everything with one status and a page."""

    status = 401

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<html><body>Sign in first</body></html>")

    do_POST = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None: ...


@contextmanager
def serving(handler: type[http.server.BaseHTTPRequestHandler] | functools.partial) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def refused(uri: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The sentence with which a new run is refused."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(BadInput) as refusal:
        open_run("attempt")
    sentence = str(refusal.value)
    print(sentence)
    assert "\n" not in sentence and len(sentence) < 500
    return sentence


@pytest.mark.parametrize("uri", ["./mlruns", "mlruns", "/srv/mlruns", "file:///srv/mlruns", "file:mlruns"])
def test_a_folder(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "sqlite:///mlflow.db" in refused(uri, monkeypatch)
    with pytest.raises(BadInput):
        open_run("attempt", run_id="also not for a run that is known")


@pytest.mark.parametrize(
    ("status", "wanted"),
    [
        (401, "MLFLOW_TRACKING_USERNAME"),
        (403, "403"),
        (404, "not as an MLflow server does"),
        (200, "not as an MLflow server does"),
    ],
)
def test_a_gate_that_refuses(status: int, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(type("Gate", (Refusing,), {"status": status})) as uri:
        assert wanted in refused(f"{uri.replace('//', '//anna:hunter2@')}", monkeypatch)
        assert "hunter2" not in refused(f"{uri.replace('//', '//anna:hunter2@')}", monkeypatch)
        # No such answer means that a run is gone.
        assert open_run("attempt", run_id="kept").run_id == "kept"


def test_a_server_of_another_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with serving(functools.partial(quiet, directory=str(tmp_path))) as uri:
        assert "not as an MLflow server does" in refused(uri, monkeypatch)


def test_nobody_at_that_port_or_of_that_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{probe.getsockname()[1]}"
    assert "nothing listens" in refused(uri, monkeypatch)
    assert open_run("attempt", run_id="kept").tracking_uri == uri
    assert "no such host" in refused("http://no-such-host.invalid:5000", monkeypatch)
    for call in (
        lambda: find_version(uri, "transfusion", "a"),
        lambda: version_of(uri, "transfusion", alias="champion"),
        lambda: set_alias(uri, "transfusion", "champion", "1"),
    ):
        with pytest.raises(BadInput, match="nothing listens"):
            call()


def test_a_proxy_that_leads_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's own server is asked past it; of another the sentence names the proxy, not the server."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert "through the proxy that HTTP_PROXY" in refused("http://tracking.invalid:5000", monkeypatch)
    keep_proxy_from_loopback()
    with serving(Refusing) as uri:
        assert "401" in refused(uri, monkeypatch)
    assert "through the proxy" in refused("http://tracking.invalid:5000", monkeypatch)
    monkeypatch.setenv("no_proxy", "corp.example")
    keep_proxy_from_loopback()
    keep_proxy_from_loopback()
    assert os.environ["NO_PROXY"] == "corp.example,localhost,127.0.0.1,::1"


def test_https_before_http(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Refusing) as uri:
        assert "check http or https" in refused(uri.replace("http", "https", 1), monkeypatch)


def test_a_kind_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "htp://host" in refused("htp://host", monkeypatch)
    assert "not installed" in refused("mysql+mysqlconnector://anna:hunter2@host/runs", monkeypatch)


@pytest.mark.parametrize(
    ("uri", "wanted"),
    [
        *(
            (uri, "in memory")
            for uri in ("sqlite:///", "sqlite://", "sqlite:///:memory:", "sqlite:///file:a?mode=memory&uri=true")
        ),
        *((uri, "of no kind") for uri in ("ftp://host/a", "s3://bucket/key", "nosuchscheme://x", "postgres://host/db")),
        *((uri, "names no host") for uri in ("http://", "https:///path")),
        *((uri, "cannot be read") for uri in ("http://[::1:5000", "http://host:99999", "http://host:abc")),
        ("sqlite://mlflow.db", "three"),
    ],
)
def test_what_no_store_has_for_an_address(uri: str, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert wanted in refused(uri, monkeypatch)
    with pytest.raises(BadInput, match=wanted):
        open_run("attempt", run_id="also not for a run that is known")


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("MLFLOW_HTTP_REQUEST_TIMEOUT", "abc", "a whole number"),
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1.5", "a whole number"),
        ("MLFLOW_TRACKING_INSECURE_TLS", "maybe", "true or false"),
    ],
)
def test_a_variable_that_is_no_value_of_its_kind(name: str, value: str, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    for run_id in ("", "kept"):
        with pytest.raises(BadInput, match=f"{name}='{value}' must be {wanted}"):
            open_run("attempt", run_id=run_id)


class Answering(Refusing):
    """A server that answers everything with the same JSON, or another status."""

    status, content = 200, b"{}"

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(self.content)

    do_POST = do_GET  # noqa: N815


@pytest.mark.parametrize(
    "content", ["{}", "[]", "3", '{"experiment": 5}', '{"experiment": {"experiment_id": []}}', '{"run": {}}']
)
def test_a_server_whose_answers_are_no_mlflows(content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(type("Other", (Answering,), {"content": content.encode()})) as uri:
        assert "not as an MLflow server does" in refused(uri, monkeypatch)
        assert open_run("attempt", run_id="kept").run_id == "kept", "no such answer means that a run is gone"


@pytest.mark.parametrize("status", [500, 501])  # MLflow asks again after the first, and then leaves the answer's text out
def test_a_server_that_fails_is_quoted_in_whole_words(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    words = " ".join(f"word{number}" for number in range(100))
    with serving(type("Failing", (Answering,), {"status": status, "content": words.encode()})) as uri:
        sentence = refused(uri, monkeypatch)
    assert f"HTTP status {status}" in sentence and "; put it right" in sentence
    quoted = sentence.partition(" ...;")[0].split()[-1]
    assert quoted in [*words.split(), "error"]


@pytest.mark.parametrize("how", ["may not be run", "is no UTF-8", "refuses"])
def test_a_git_that_is_of_no_use(
    how: str, tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it does not say is said, where there is a repository."""
    (project / ".git").mkdir()
    program = tmp_path / "bin/git"
    program.parent.mkdir()
    refusal = b"echo 'fatal: detected dubious ownership' >&2; exit 128\n" if how == "refuses" else b""
    program.write_bytes(b"#!/bin/sh\n" + refusal + b"printf 'caf\\351'\n")
    program.chmod(0o644 if how == "may not be run" else 0o755)
    monkeypatch.setenv("PATH", str(program.parent) if how == "may not be run" else f"{program.parent}:{os.environ['PATH']}")
    run = open_run("attempt")
    tags = client_of(run.tracking_uri).get_run(run.run_id).data.tags
    assert tags.get("mlflow.source.git.branch") == ("caf\ufffd" if how == "is no UTF-8" else None)
    assert ("recorded without all that git knows" in capsys.readouterr().out) == (how != "is no UTF-8")


def test_an_experiment_that_was_deleted(monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    run = open_run("attempt")
    client = client_of(run.tracking_uri)
    experiment = client.get_run(run.run_id).info.experiment_id
    client.delete_experiment(experiment)
    sentence = refused(run.tracking_uri, monkeypatch)
    assert f"mlflow experiments restore --experiment-id {experiment}" in sentence
    client.restore_experiment(experiment)
    open_run("attempt")


def test_a_database_that_cannot_be_used(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "text.db").write_text("a letter to my mother, which is longer than the header of a database " * 20)
    assert "no SQLite database" in refused("sqlite:///text.db", monkeypatch) or "not a database" in refused(
        "sqlite:///text.db", monkeypatch
    )
    (project / "folder.db").mkdir()
    assert "is a folder" in refused("sqlite:///folder.db", monkeypatch)
    (project / "file").touch()
    assert "cannot be made" in refused("sqlite:///file/below/mlflow.db", monkeypatch)


def test_a_database_of_somebody_else(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_run("attempt")
    with unprivileged(project):
        assert "cannot be written" in refused("sqlite:///mlflow.db", monkeypatch)
        assert open_run("attempt", run_id=run.run_id) == run
        assert "cannot be written" in refused("sqlite:///new.db", monkeypatch)


@contextmanager
def unprivileged(folder: Path) -> Iterator[None]:
    """Nobody may write in `folder`, its files included; root, whom modes do not bind, becomes somebody else meanwhile."""
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    was_root = os.geteuid() == 0
    closed = [(parent, parent.stat().st_mode) for parent in folder.parents if was_root and (parent.stat().st_mode & 5) != 5]
    for parent, mode in closed:
        parent.chmod(mode | 5)
    if was_root:
        os.setegid(65534)
        os.seteuid(65534)
    try:
        yield
    finally:
        if was_root:
            os.seteuid(0)
            os.setegid(0)
        for path in paths:
            path.chmod(0o755 if path.is_dir() else 0o644)
        for parent, mode in closed:
            parent.chmod(mode)


def test_a_database_that_is_locked(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_run("attempt")
    monkeypatch.setattr("components.runtime.relocation.WAIT_S", 0.1)
    with closing(sqlite3.connect("mlflow.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert "locked" in refused("sqlite:///mlflow.db", monkeypatch)
