"""The page to try prompts in: answers come one by one, and nobody but this machine's own pages is answered."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from export.ask import open_model
from export.page import HOST, MAX_BODY_BYTES, Page, main
from tests.export.conftest import EVALUATED, Made, png

WORDS = "a red three top left"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def page(made: Made) -> Iterator[Page]:
    with Page(open_model(made.bundle.folder), 0) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield served
        served.shutdown()
        thread.join()


def reply(page: Page, method: str, path: str, body: str | bytes = "", **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(HOST, page.server_port, timeout=60)
    connection.request(method, path, body, headers)
    return connection.getresponse()


def answers(page: Page, **asked: Any) -> list[dict[str, Any]]:
    response = reply(page, "POST", "/ask", json.dumps(asked), **JSON)
    assert response.status == 200
    return [json.loads(line) for line in response.read().splitlines()]


def test_the_page_shows_how_the_model_was_measured_and_loads_nothing(page: Page) -> None:
    response = reply(page, "GET", "/")
    text = response.read().decode()
    assert f'"guidance_scale": {EVALUATED.sampling.guidance_scale}' in text and "{{" not in text
    assert "default-src 'none'" in (response.getheader("Content-Security-Policy") or "")
    assert "http://" not in text and "https://" not in text and "src=" not in text.replace(".src", "")


def test_it_listens_on_loopback_alone(page: Page) -> None:
    assert page.server_address[0] == "127.0.0.1"


def test_pictures_come_as_they_are_made(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is read before the second is begun."""
    first_seen, ask = threading.Event(), page.predictor.ask

    def waiting(*args: Any, **chosen: Any) -> Any:
        if chosen["seed"] == 8:
            assert first_seen.wait(30)
        return ask(*args, **chosen)

    monkeypatch.setattr(page.predictor, "ask", waiting)
    response = reply(page, "POST", "/ask", json.dumps({"prompt": WORDS, "pictures": 2, "seed": 7}), **JSON)
    first = json.loads(response.readline())
    first_seen.set()
    second = json.loads(response.readline())
    assert (first["seed"], second["seed"], response.read()) == (7, 8, b"")
    for answer in (first, second):
        assert base64.b64decode(answer["image"]) == ask(WORDS, seed=answer["seed"]).image_png


def test_words_are_answered_once(page: Page) -> None:
    picture = base64.b64encode(png(20, 20)).decode()
    assert answers(page, image=picture, pictures=4) == [{"text": page.predictor.ask(image=png(20, 20)).text}]
    continued = page.predictor.ask("Return", task="text", max_new_tokens=3).text
    assert answers(page, prompt="Return", task="text", max_new_tokens=3) == [{"text": continued}]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "prompt is empty"),
        ({"prompt": 7}, "prompt must be text"),
        ({"prompt": "a", "task": "sing"}, "task 'sing' is not one of"),
        ({"prompt": "a", "pictures": 65}, "pictures: 65 must be a whole number from 1 to 64"),
        ({"prompt": "a", "guidance_scale": 0}, "guidance_scale: 0 must be a number"),
        ({"prompt": "a", "image": "@"}, "the picture did not arrive whole"),
        ({"image": "YWJj"}, "image is not PNG, JPEG, WEBP"),
    ],
    ids=str,
)
def test_what_cannot_be_asked_is_one_sentence(page: Page, asked: dict[str, Any], said: str) -> None:
    (answer,) = answers(page, **asked)
    assert list(answer) == ["error"] and answer["error"].startswith(said)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {"Host": "elsewhere.example:7860"}, 403),
        ("POST", "/ask", {"Host": "elsewhere.example", **JSON}, 403),
        # What a form of another site can send without asking.
        ("POST", "/ask", {"Content-Type": "text/plain"}, 415),
        ("GET", "/manifest.json", {}, 404),
        ("POST", "/", JSON, 404),
        ("POST", "/ask", JSON | {"Content-Length": str(MAX_BODY_BYTES + 1)}, 413),
    ],
)
def test_nobody_else_is_answered(page: Page, method: str, path: str, headers: dict[str, str], status: int) -> None:
    assert reply(page, method, path, json.dumps({"prompt": "a"}), **headers).status == status


def test_a_body_that_is_no_object_is_refused(page: Page) -> None:
    for body in ("[1]", "{", b"\xff"):
        assert reply(page, "POST", "/ask", body, **JSON).status == 400


def test_a_port_that_is_taken_is_one_sentence(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["--model", str(made.bundle.folder), "--port", str(port)]) == 1
    assert capsys.readouterr().err == f"page: port {port} is taken; take another with --port\n"
