"""As much of the Hugging Face Hub as an upload and a download speak to, on loopback.

What a client of huggingface_hub sends is taken apart here by the Hub's published protocol (preupload, Git LFS's batch API, one
commit as lines of JSON), so the client's own code runs as it does against the real one.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

LARGE_BYTES = 4096


@dataclass
class Repository:
    """commits: how many, the empty first one included."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: int = 1

    @property
    def head(self) -> str:
        """The newest commit's name."""
        return f"{self.commits:040x}"


class Hub(ThreadingHTTPServer):
    """token: the one that may write, to repositories of `owner`."""

    daemon_threads = True

    def __init__(self, owner: str, token: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.owner, self.token = owner, token
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.refused: dict[str, tuple[int, str]] = {}
        """Part of a path -> the status and the sentence with which every request for it is refused."""

    @property
    def url(self) -> str:
        """Its address, as HF_ENDPOINT takes it."""
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Hub  # pyright: ignore[reportIncompatibleVariableOverride]

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        """A repository's facts, or a small file of it."""
        self._answer("GET")

    def do_HEAD(self) -> None:
        """A file's facts."""
        self._answer("HEAD")

    def do_POST(self) -> None:
        """All but the large files themselves."""
        self._answer("POST")

    def do_PUT(self) -> None:
        """A large file, by its digest."""
        self._answer("PUT")

    def _answer(self, verb: str) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(f"{verb} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        for part, (status, sentence) in self.server.refused.items():
            if part in path:
                return self._say(status, {"error": sentence})
        if match := re.fullmatch(r"/large/(\w+)", path):
            assert hashlib.sha256(body).hexdigest() == match[1]
            self.server.large[match[1]] = body
            return self._say(200, {})
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            return self._say(401, {"error": "Invalid username or password."})
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/(\w+)/(.+)", path):
            return self._file(self.server.repositories[match[1]], match[3])
        value = json.loads(body) if body and not path.endswith("/commit/main") else {}
        if path == "/api/validate-yaml":
            return self._card(value["content"])
        if path == "/api/repos/create":
            return self._create(value)
        if path.endswith("/info/lfs/objects/batch"):
            return self._batch(value)
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(preupload|commit|revision)/\w+)?", path)
        repository = self.server.repositories.get(match[1]) if match else None
        if match is None or repository is None:
            return self._say(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        if match[2] == "preupload":
            return self._preupload(value, repository)
        if match[2] == "commit":
            return self._commit(body, match[1], repository)
        siblings = [{"rfilename": name} for name in repository.files]
        return self._say(
            200, {"id": match[1], "sha": repository.head, "private": repository.private, "tags": [], "siblings": siblings}
        )

    def _file(self, repository: Repository, name: str) -> None:
        content = repository.files.get(name)
        if content is None:
            return self._say(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        return self._send(200, content, {"ETag": f'"{_oid(content, large=False)}"', "X-Repo-Commit": repository.head})

    def _card(self, content: str) -> None:
        data = yaml.safe_load(content.split("---")[1])
        wrong = [] if isinstance(data.get("tags"), list) else [{"message": '"tags" must be an array'}]
        self._say(400 if wrong else 200, {"errors": wrong, "warnings": []})

    def _create(self, value: dict[str, Any]) -> None:
        owner = value["organization"] or self.server.owner
        if owner != self.server.owner:
            return self._say(403, {"error": f"You don't have the rights to create a model under the namespace {owner!r}"})
        name = f"{owner}/{value['name']}"
        self.server.repositories[name] = Repository(private=value.get("visibility") == "private" or bool(value.get("private")))
        return self._say(200, {"url": f"{self.server.url}/{name}"})

    def _preupload(self, value: dict[str, Any], repository: Repository) -> None:
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["size"] > LARGE_BYTES else "regular",
                "shouldIgnore": False,
                "oid": _oid(repository.files.get(file["path"]), large=file["size"] > LARGE_BYTES),
            }
            for file in value["files"]
        ]
        self._say(200, {"files": files})

    def _batch(self, value: dict[str, Any]) -> None:
        objects = [
            one
            | (
                {}
                if one["oid"] in self.server.large
                else {"actions": {"upload": {"href": f"{self.server.url}/large/{one['oid']}"}}}
            )
            for one in value["objects"]
        ]
        self._say(200, {"objects": objects, "transfer": "basic"})

    def _commit(self, body: bytes, name: str, repository: Repository) -> None:
        header, *changes = (json.loads(line) for line in body.splitlines())
        if header["value"].get("parentCommit", repository.head) != repository.head:
            return self._say(412, {"error": "A commit has happened since. Please refresh and try again."})
        for change in changes:
            value = change["value"]
            if change["key"] == "deletedFile":
                del repository.files[value["path"]]
                continue
            is_large = change["key"] == "lfsFile"
            content = self.server.large[value["oid"]] if is_large else base64.b64decode(value["content"])
            repository.files[value["path"]] = content
        repository.commits += 1
        url = f"{self.server.url}/{name}/commit/{repository.head}"
        return self._say(200, {"success": True, "commitOid": repository.head, "commitUrl": url})

    def _say(self, status: int, value: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, text in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextmanager
def serving(owner: str, token: str) -> Iterator[Hub]:
    """A Hub that answers until the block ends."""
    with Hub(owner, token) as hub:
        thread = threading.Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        yield hub
        hub.shutdown()
        thread.join()


def _oid(content: bytes | None, *, large: bool) -> str | None:
    """Of a file that is there already, as Git or Git LFS name it."""
    if content is None:
        return None
    return hashlib.sha256(content).hexdigest() if large else hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
