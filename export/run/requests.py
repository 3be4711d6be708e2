"""Requests, and the file of them: each line is checked for itself; a bad one is set aside, the others stand.

{"id": "7", "task": "text_to_image", "prompt": "a red three top left"}
{"id": "8", "task": "image_to_text", "image": "images/8.png"}       a path relative to the JSONL file, below its folder
{"id": "9", "task": "image_to_image", "image": "images/8.png", "prompt": "make it blue"}   a picture and what to change in it
{"id": "10", "task": "text", "prompt": "Return the"}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from core.errors import BadInput
from core.text import DoubledKey, check_text, each_key_once, shown
from export.run.picture_files import check_size
from export.run.request_file import RequestLines

# What each task is made of.
TASKS = {
    "text_to_image": ("prompt",),
    "image_to_text": ("image",),
    "image_to_image": ("image", "prompt"),
    "text": ("prompt",),
}
_KEYS = {"id", "task", "prompt", "image"}


class Prompt(NamedTuple):
    """One request, whoever makes it: a line of a file, a served record, a caller."""

    id: str
    task: str
    """One of TASKS."""
    prompt: str = ""
    """The words; "" for image_to_text."""
    image: bytes | str = ""
    """An image file's bytes. Of a line: the file's name, relative to the file of requests, or ""."""
    line: int = 0
    """Of a line its number, from 1."""

    @property
    def image_name(self) -> str:
        """The name of the image's file; "" where there is none, or where its bytes are here."""
        return self.image if isinstance(self.image, str) else ""


class BadLine(NamedTuple):
    """A line set aside."""

    line: int
    id: str
    """"" where it could not be read."""
    reason: str


class ReadRequests(NamedTuple):
    """Every line of the file but the blank ones, in one of the two lists."""

    good: list[Prompt]
    bad: list[BadLine]
    sha256: str
    """Of the bytes that were read."""


def read_requests(path: Path) -> ReadRequests:
    """Read and check every line of `path`; raises BadInput where it is missing, or holds no good line."""
    good: list[Prompt] = []
    bad: list[BadLine] = []
    seen: set[str] = set()
    lines = RequestLines(path)
    for number, raw in lines.numbered():
        try:
            value = _value(raw)
        except ValueError as error:
            bad.append(BadLine(number, "", str(error)))
            continue
        # Apart from the first try, because a line that can be read has an id to find it again by.
        try:
            request = _request(number, value)
        except ValueError as error:
            bad.append(BadLine(number, _id_of(value), str(error)))
            continue
        if request.id in seen:
            bad.append(BadLine(number, request.id, f"id {shown(request.id)} occurs twice; the first line with it stands"))
            continue
        # Of good lines alone: a bad one takes no id away from a good one after it.
        seen.add(request.id)
        good.append(request)
    if not good:
        first = f"; line {bad[0].line}: {bad[0].reason}" if bad else ""
        told = f" {lines.hint}, and" if lines.hint else ""
        raise BadInput(f"{path}{told} holds no usable request{first}; write one JSON object a line")
    return ReadRequests(good, bad, lines.sha256)


def _value(raw: bytes | str) -> Any:
    """The JSON of a line; raises ValueError with one sentence. raw: the bytes, or why they are not to be read."""
    if isinstance(raw, str):
        raise ValueError(raw)
    try:
        return json.loads(raw.decode(), object_pairs_hook=each_key_once)
    except UnicodeDecodeError:
        raise ValueError("the line is not UTF-8") from None
    except DoubledKey as error:
        raise ValueError(str(error)) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the line is not JSON: {error}") from None


def _id_of(value: Any) -> str:
    """The id of a line that is set aside, where there is one to find it again by."""
    found = value.get("id") if isinstance(value, dict) else None
    try:
        check_text("id", found)
    except ValueError:
        return ""
    return str(found) if str(found).strip() else ""


def _request(number: int, value: Any) -> Prompt:
    if not isinstance(value, dict):
        raise ValueError(f"the line holds {type(value).__name__}, not an object")
    if unknown := sorted(set(value) - _KEYS):
        raise ValueError(f"unknown key {shown(unknown[0])}; known are {', '.join(sorted(_KEYS))}")
    check_fields(value)
    for key in TASKS[value["task"]]:
        if not value.get(key, "").strip():
            raise ValueError(f"{key} is missing or empty; {value['task']} needs it")
    _check_place(value.get("image", ""))
    return Prompt(**value, line=number)


def check_fields(fields: Mapping[str, Any]) -> None:
    """Raise ValueError with one sentence for a field of a prompt that holds what it cannot, or that its task is not made of."""
    for name, value in fields.items():
        if name == "image" and isinstance(value, bytes | bytearray | memoryview):
            check_size(value)
        else:
            check_text(name, value)
    if not fields.get("id", "").strip():
        raise ValueError("id is missing; give every request its own")
    task = fields.get("task", "")
    if task not in TASKS:
        raise ValueError(f"task {shown(task)} is not one of {', '.join(TASKS)}")
    for name in ("image", "prompt"):
        if fields.get(name) and name not in TASKS[task]:
            raise ValueError(f"{name} has no meaning for {task}; leave it out")


def usual_task(prompt: str, image: bytes | str = b"") -> str:
    """What is most likely wanted of words, of a picture, or of both, where nobody says: one of TASKS."""
    if image:
        return "image_to_image" if prompt else "image_to_text"
    return "text_to_image"


def _check_place(image: str) -> None:
    place = PurePosixPath(image)
    if place.is_absolute() or ".." in place.parts:
        raise ValueError(f"image {shown(image)} must lie below the folder of the requests")
    if "\0" in image:
        raise ValueError(f"image {shown(image)} holds a zero character, which no name of a file can")
