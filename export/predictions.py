"""What does batch inference leave behind? Results in request order, lines set aside, a journal, a few figures.

results.jsonl holds each good request with `generated_text` or `generated_image` (a path beside it); quarantine.jsonl
each line set aside with its number and reason. The journal, one line an answer, is what a killed run goes on from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from export.contact_sheet import Cell, contact_sheet
from export.requests import BadLine, ReadRequests, RequestLine

RESULTS, QUARANTINE, IMAGES = "results.jsonl", "quarantine.jsonl", "images"
MAX_CELLS = 36

# What `BatchActor` says of one line: line, id, task, and generated_text, generated_image or error.
Record = dict[str, Any]


class Predictions(NamedTuple):
    """answered: (request, its record) in request order. bad: lines set aside, before or by an engine, in line order."""

    answered: list[tuple[RequestLine, Record]]
    bad: list[BadLine]


def read_journal(journal: Path, folder: Path) -> dict[int, Record]:
    """Line number -> record of what a run answered; a last line cut off by a kill, or a lost picture, is ignored.

    folder: where generated_image paths start.
    """
    records: dict[int, Record] = {}
    for text in journal.read_text(errors="replace").splitlines() if journal.is_file() else ():
        try:
            record = json.loads(text)
        except json.JSONDecodeError:
            continue
        image = record.get("generated_image")
        if image is None or (folder / image).is_file():
            records[record["line"]] = record
    return records


def append_journal(journal: Path, records: Iterable[Record]) -> None:
    """Note finished answers."""
    with journal.open("a") as file:
        # A kill may have cut the last line: what follows starts on a new one.
        file.write("".join(f"\n{json.dumps(record)}" for record in records))


def gather(read: ReadRequests, records: Mapping[int, Record]) -> Predictions:
    """Every line of the request file in one of the two lists."""
    answered = [(line, records[line.line]) for line in read.good if "error" not in records[line.line]]
    refused = [BadLine(line.line, line.id, records[line.line]["error"]) for line in read.good if "error" in records[line.line]]
    return Predictions(answered, sorted([*read.bad, *refused]))


def write_predictions(folder: Path, predictions: Predictions) -> dict[str, int]:
    """Write results.jsonl and quarantine.jsonl; returns their numbers of records."""
    results = []
    for line, record in predictions.answered:
        request = {"id": line.id, "task": line.task, "prompt": line.prompt, "image": line.image}
        generated = {key: record[key] for key in ("generated_text", "generated_image") if key in record}
        results.append({key: value for key, value in request.items() if value} | generated)
    _write_lines(folder / RESULTS, results)
    _write_lines(folder / QUARANTINE, [bad._asdict() for bad in predictions.bad])
    return {RESULTS: len(results), QUARANTINE: len(predictions.bad)}


def _write_lines(path: Path, values: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values))


def sheet(predictions: Predictions, folder: Path, requests_folder: Path) -> bytes:
    """A contact sheet's PNG bytes: generated pictures with their prompts, given ones with their generated captions."""
    cells = []
    for line, record in predictions.answered:
        if "generated_image" in record:
            cells.append(Cell((folder / record["generated_image"]).read_bytes(), line.prompt, "picture"))
        elif line.image:
            cells.append(Cell((requests_folder / line.image).read_bytes(), record["generated_text"], "caption"))
    return contact_sheet(cells[:MAX_CELLS])


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
