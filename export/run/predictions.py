"""The output of batch inference: results in request order, lines set aside, a contact sheet, a few figures.

results.jsonl holds each good request with `generated_text` or `generated_image` (a path beside it); quarantine.jsonl
each line set aside with its number and reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from core.errors import BadPrompt
from core.files import named
from export.run.contact_sheet import Cell, contact_sheet
from export.run.journal import Record
from export.run.picture_files import read_picture
from export.run.requests import BadLine, Prompt, ReadRequests

RESULTS, QUARANTINE, IMAGES = "results.jsonl", "quarantine.jsonl", "images"
MAX_CELLS = 36

MAX_NAMED = 20
# Ends of lines to some readers, and characters like others to JSON.
LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\u0085\u2028\u2029"}


class Predictions(NamedTuple):
    """Every line of the request file, in one of the two lists."""

    answered: list[tuple[Prompt, Record]]
    """Each request and its record, in the order of the file."""
    bad: list[BadLine]
    """Lines set aside when they were read, and by the engine; in the order of the file."""


def gather(read: ReadRequests, records: Mapping[int, Record]) -> Predictions:
    """Every line of the request file in one of the two lists."""
    answered = [(line, records[line.line]) for line in read.good if "error" not in records[line.line]]
    refused = [BadLine(line.line, line.id, records[line.line]["error"]) for line in read.good if "error" in records[line.line]]
    return Predictions(answered, sorted([*read.bad, *refused]))


def write_predictions(folder: Path, predictions: Predictions) -> dict[str, int]:
    """Write results.jsonl and quarantine.jsonl; returns their numbers of records."""
    results = []
    for line, record in predictions.answered:
        request = {"id": line.id, "task": line.task, "prompt": line.prompt, "image": line.image_name}
        generated = {key: record[key] for key in ("generated_text", "generated_image") if key in record}
        results.append({key: value for key, value in request.items() if value} | generated)
    _write_lines(folder / RESULTS, results)
    _write_lines(folder / QUARANTINE, [bad._asdict() for bad in predictions.bad])
    return {RESULTS: len(results), QUARANTINE: len(predictions.bad)}


def _write_lines(path: Path, values: Sequence[Mapping[str, Any]]) -> None:
    lines = (json.dumps(value, ensure_ascii=False).translate(LINE_ENDS) for value in values)
    with named(path), path.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def set_aside(path: Path, predictions: Predictions) -> str:
    """Lines for people: which of the requests in `path` were set aside, and why; the first ones, and how many there are."""
    named = [f"{path}:{bad.line} set aside: {bad.reason}" for bad in predictions.bad[:MAX_NAMED]]
    more = len(predictions.bad) - len(named)
    return "".join(f"{line}\n" for line in [*named, *([f"{more} more set aside; see {QUARANTINE}"] if more else [])])


def sheet(predictions: Predictions, folder: Path, requests_folder: Path) -> bytes:
    """A contact sheet's PNG bytes: generated pictures with their prompts, given ones with their generated captions."""
    return contact_sheet(list(islice(_cells(predictions, folder, requests_folder), MAX_CELLS)))


def _cells(predictions: Predictions, folder: Path, requests_folder: Path) -> Iterator[Cell]:
    for line, record in predictions.answered:
        if "generated_image" in record:
            yield Cell((folder / record["generated_image"]).read_bytes(), line.prompt, "picture")
        elif line.image_name:
            try:
                picture = read_picture(requests_folder, line.image_name)
            except BadPrompt:
                # Gone since it was answered, which is no reason to lose the answers.
                continue
            yield Cell(picture, record["generated_text"], "caption")


def figures(predictions: Predictions, *, seconds: float, num_resumed: int) -> dict[str, Any]:
    """What the run did and how fast; seconds: wall time of the batches, start of the processes included."""
    records = [record for _, record in predictions.answered]
    num_images = sum("generated_image" in record for record in records)
    num_tokens = sum(record.get("num_tokens", 0) for record in records)
    new = max(0, len(records) - num_resumed)
    return {
        "requests": len(records),
        "requests_set_aside": len(predictions.bad),
        "requests_taken_from_an_interrupted_run": num_resumed,
        "images": num_images,
        "tokens": num_tokens,
        "seconds": round(seconds, 2),
        "requests_per_s": round(new / seconds, 3) if seconds > 0 else 0.0,
    }
