"""What is asked for? Lines of a JSONL file, each checked for itself: a bad line is set aside, the others stand.

{"id": "7", "task": "text_to_image", "prompt": "a red three top left"}
{"id": "8", "task": "image_to_text", "image": "images/8.png"}       a path relative to the JSONL file, below its folder
{"id": "9", "task": "image_to_image", "image": "images/8.png", "prompt": "make it blue"}   a picture and what to change in it
{"id": "10", "task": "text", "prompt": "Return the"}
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from export.failure import ExportRefused

# What each task is made of.
TASKS = {
    "text_to_image": ("prompt",),
    "image_to_text": ("image",),
    "image_to_image": ("image", "prompt"),
    "text": ("prompt",),
}
MAX_LINE_BYTES = 2**20
_KEYS = {"id", "task", "prompt", "image"}


class RequestLine(NamedTuple):
    """One good line. line: its number from 1. prompt: "" for image_to_text. image: relative to the file, or ""."""

    line: int
    id: str
    task: str
    prompt: str
    image: str


class BadLine(NamedTuple):
    """A line set aside. id: "" where it could not be read."""

    line: int
    id: str
    reason: str


class ReadRequests(NamedTuple):
    """Every line of the file but the blank ones, in one of the two lists."""

    good: list[RequestLine]
    bad: list[BadLine]


def read_requests(path: Path) -> ReadRequests:
    """Read and check every line of `path`; raises ExportRefused where the file is missing."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ExportRefused(
            f"{path} cannot be read ({error.strerror}); set infer.requests to a JSONL file of requests"
        ) from None
    result = ReadRequests([], [])
    seen: set[str] = set()
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not raw.strip():
            continue
        try:
            request = _parse(number, raw)
        except ValueError as error:
            result.bad.append(BadLine(number, "", str(error)))
            continue
        if request.id in seen:
            result.bad.append(BadLine(number, request.id, f"id {request.id!r} occurs twice; the first line with it stands"))
            continue
        seen.add(request.id)
        result.good.append(request)
    return result


def _parse(number: int, raw: bytes) -> RequestLine:
    if len(raw) > MAX_LINE_BYTES:
        raise ValueError(f"the line has {len(raw)} bytes, more than {MAX_LINE_BYTES}")
    try:
        value: Any = json.loads(raw.decode())
    except UnicodeDecodeError:
        raise ValueError("the line is not UTF-8") from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"the line is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"the line holds {type(value).__name__}, not an object")
    if unknown := sorted(set(value) - _KEYS):
        raise ValueError(f"unknown key {unknown[0]!r}; known are {', '.join(sorted(_KEYS))}")
    for key, item in value.items():
        if not isinstance(item, str):
            raise ValueError(f"{key} must be text, not {type(item).__name__}")
    return _request(number, value)


def _request(number: int, value: dict[str, str]) -> RequestLine:
    if not value.get("id"):
        raise ValueError("id is missing; give every request its own")
    task = value.get("task", "")
    if task not in TASKS:
        raise ValueError(f"task {task!r} is not one of {', '.join(TASKS)}")
    for key in ("image", "prompt"):
        needed = key in TASKS[task]
        if needed and not value.get(key, "").strip():
            raise ValueError(f"{key} is missing or empty; {task} needs it")
        if not needed and value.get(key):
            raise ValueError(f"{key} has no meaning for {task}; leave it out")
    image = PurePosixPath(value.get("image", ""))
    if image.is_absolute() or ".." in image.parts:
        raise ValueError(f"image {str(image)!r} must lie below the folder of the requests")
    return RequestLine(number, value["id"], task, value.get("prompt", ""), value.get("image", ""))
