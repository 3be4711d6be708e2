"""A run's course on disk, which outlives its processes: a JSON line a report, and a table made of them."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Mapping
from pathlib import Path

from core.files import named, read_json_lines, write_text

# Column of the history -> name of the metric in the journal.
COLUMNS = {
    "loss": "train/loss",
    "text": "train/loss_text",
    "image": "train/loss_image",
    "validation_loss": "validation/loss",
    "validation_text": "validation/loss_text",
    "validation_image": "validation/loss_image",
    "learning_rate": "train/learning_rate",
    "gradient_norm": "train/gradient_norm",
    "tokens_per_s": "perf/tokens_per_s",
}


def add_to(journal: Path, step: int, values: Mapping[str, float]) -> None:
    """Append a report."""
    with named(journal), journal.open("a") as file:
        file.write(json.dumps({"step": step, "time_ms": int(time.time() * 1000), **values}) + "\n")


def truncate_after(journal: Path, step: int) -> None:
    """Drop what stands of steps after `step`, which will be taken again."""
    kept = [entry for entry in read_json_lines(journal) if entry["step"] <= step]
    if journal.exists():  # rewritten in any case: what is appended to a line that a kill cut short would be lost with it
        write_text(journal, "".join(json.dumps(entry) + "\n" for entry in kept))


def last_values(journal: Path) -> dict[str, float]:
    """The last value of every metric."""
    values: dict[str, float] = {}
    for entry in read_json_lines(journal):
        values |= {name: value for name, value in entry.items() if "/" in name}
    return values


def history_csv(journal: Path) -> str:
    """One row a step that was reported, empty where a column was not reported at that step."""
    rows: dict[int, dict[str, float]] = {}
    for entry in read_json_lines(journal):
        rows.setdefault(int(entry["step"]), {}).update(entry)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", *COLUMNS])
    for step in sorted(rows):
        values = [rows[step].get(name, "") for name in COLUMNS.values()]
        writer.writerow([step, *(f"{value:.6g}" if value != "" else "" for value in values)])
    return text.getvalue()
