"""A page to try prompts in, on this machine alone: python -m export.page, then http://127.0.0.1:7860.

The standard library serves it, and it loads nothing from anywhere else. Only this machine can reach the address, and what
another site's page in the same browser might send there is refused.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import errno
import json
import sys
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import BadInput
from export.ask import BUNDLE, OPTIONS, add_model_options, exit_code, open_model
from export.page_html import PAGE, POLICY

if TYPE_CHECKING:
    from export.run.predictor import Predictor

HOST, PORT = "127.0.0.1", 7860
MAX_PICTURES = 64
# A picture of the largest size in base64, and the words beside it.
MAX_BODY_BYTES = 90 * 2**20


class Page(ThreadingHTTPServer):
    """The page of one model."""

    daemon_threads = True

    def __init__(self, predictor: Predictor, port: int) -> None:
        super().__init__((HOST, port), Handler)
        self.predictor = predictor
        # An engine answers one at a time.
        self.asking = threading.Lock()

    @property
    def hosts(self) -> set[str]:
        """The names that a browser on this machine has for it."""
        return {f"{name}:{self.server_port}" for name in (HOST, "localhost")}

    def answers(self, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Each answer as it is there: {"image": base64, "seed": n}, {"text": ...} or {"error": one sentence}."""
        try:
            image = base64.b64decode(str(asked.get("image", "")), validate=True)
            chosen = {name: asked[name] for name in OPTIONS if asked.get(name) is not None}
            first = self.predictor.options(**chosen).seed
            prompt, task, number = asked.get("prompt", ""), asked.get("task", ""), asked.get("pictures", 1)
            if not isinstance(number, int) or not 1 <= number <= MAX_PICTURES:
                raise ValueError(f"pictures: {number!r} must be a whole number from 1 to {MAX_PICTURES}")
            for seed in range(first, first + number):
                with self.asking:
                    answer = self.predictor.ask(prompt, image=image, task=task, **chosen | {"seed": seed})
                if not answer.image_png:
                    yield {"text": answer.text}
                    return
                yield {"image": base64.b64encode(answer.image_png).decode(), "seed": seed}
        except binascii.Error:
            yield {"error": "the picture did not arrive whole; choose it again"}
        except ValueError as error:
            yield {"error": str(error)}


class Handler(BaseHTTPRequestHandler):
    """One request of a browser."""

    server: Page  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        """The page."""
        if self._is_own() and self._is(self.path == "/", 404):
            usual = self.server.predictor.options()
            text = PAGE.replace("{{usual}}", json.dumps({name: getattr(usual, name) for name in OPTIONS}))
            self._begin("text/html; charset=utf-8")
            self.wfile.write(text.encode())

    def do_POST(self) -> None:
        """Answers to a prompt, a line of JSON each, sent as they are made."""
        if not self._is_own() or not self._is(self.path == "/ask", 404):
            return
        # A page of another site cannot send JSON here without asking first, and it is not answered.
        if not self._is(self.headers.get("Content-Type", "").startswith("application/json"), 415):
            return
        length = self.headers.get("Content-Length", "")
        if not self._is(length.isdecimal() and int(length) <= MAX_BODY_BYTES, 413):
            return
        try:
            asked = json.loads(self.rfile.read(int(length)))
        except ValueError:
            asked = None
        if not isinstance(asked, dict):
            return self.send_error(400)
        self._begin("application/x-ndjson")
        try:
            for answer in self.server.answers(asked):
                self.wfile.write(json.dumps(answer).encode() + b"\n")
                self.wfile.flush()
        except ConnectionError:
            # The page was closed, or another prompt was asked; what is left is not made.
            return

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: prompts are nobody's business."""

    def _is_own(self) -> bool:
        """A name that another site gave this machine's address (DNS rebinding) is none of its own."""
        return self._is(self.headers.get("Host", "") in self.server.hosts, 403)

    def _is(self, right: bool, otherwise: int) -> bool:
        if not right:
            self.send_error(otherwise)
        return right

    def _begin(self, kind: str) -> None:
        self.send_response(200)
        for name, value in {"Content-Type": kind, "Content-Security-Policy": POLICY, "Cache-Control": "no-store"}.items():
            self.send_header(name, value)
        self.end_headers()


def main(arguments: Sequence[str] | None = None, *, model: Path = BUNDLE, command: str = "python -m export.page") -> int:
    """Serve the page until it is interrupted; returns the exit code. model, command: as in export/ask.py."""
    parser = argparse.ArgumentParser(prog=command, description=(__doc__ or "").partition(":")[0])
    add_model_options(parser, model)
    parser.add_argument("--port", type=int, default=PORT, help="where to listen (default: %(default)s)")
    asked = parser.parse_args(arguments)
    if not 0 <= asked.port < 65536:
        parser.error(f"--port {asked.port}: take a number from 1024 to 65535")
    return exit_code("page", lambda: _serve(asked))


def _serve(asked: argparse.Namespace) -> None:
    predictor = open_model(asked.model, engine=asked.engine)
    try:
        page = Page(predictor, asked.port)
    except OSError as error:
        reason = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise BadInput(f"port {asked.port} {reason}; take another with --port") from None
    with page:
        print(f"http://{HOST}:{page.server_port} (Ctrl-C ends it)", flush=True)
        page.serve_forever()


if __name__ == "__main__":
    sys.exit(main())
