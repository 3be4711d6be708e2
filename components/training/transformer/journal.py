"""A run's course on disk, which outlives its processes: a JSON line a report, and a table made of them."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Mapping
from pathlib import Path

from core.files import named, read_json_lines, write_text

LOSSES = {
    "loss": "loss",
    "text": "loss_text",
    "image": "loss_image",
    "text_after_image": "text_after_image",
    "text_elsewhere": "text_elsewhere",
}
# File -> column -> name of the metric in the journal. A file for each split, because they are not measured at the same
# steps: readers of tables (DVC's plots among them) take an empty cell for a zero.
TABLES = {
    "history.csv": {
        **{column: f"train/{name}" for column, name in LOSSES.items()},
        "learning_rate": "train/learning_rate",
        "gradient_norm": "train/gradient_norm",
        "tokens_per_s": "perf/tokens_per_s",
    },
    "validation.csv": {column: f"validation/{name}" for column, name in LOSSES.items()}
    | {"caption_gap": "validation/caption_gap"},
}
# Before a band of noise levels, of the training's images; for curves alone, because it rises and falls with the steps' draws.
IMAGE_BY_TIME = "train/loss_image_by_time/"
# Before the held-out metrics; before a noise level among them, and in the columns of validation.csv.
VALIDATION, X0_ERROR, X0_ERROR_COLUMN = "validation/", "validation/x0_error/", "x0_error_"


def add_to(journal: Path, step: int, values: Mapping[str, float]) -> None:
    """Append a report."""
    with named(journal), journal.open("a") as file:
        file.write(json.dumps({"step": step, "time_ms": int(time.time() * 1000), **values}) + "\n")


def shown_names(values: Mapping[str, float]) -> dict[str, float]:
    """A report's numbers as MLflow has them: speeds among the system's metrics, so that its first charts are the losses."""
    return {name.replace("perf/", "system/", 1): value for name, value in values.items() if "/" in name}


def truncate_after(journal: Path, step: int) -> None:
    """Drop what stands of steps after `step`, which will be taken again."""
    kept = [entry for entry in read_json_lines(journal) if entry["step"] <= step]
    if journal.exists():  # rewritten in any case: what is appended to a line that a kill cut short would be lost with it
        write_text(journal, "".join(json.dumps(entry) + "\n" for entry in kept))


def last_values(journal: Path, kept_step: int) -> dict[str, float]:
    """The last value of every metric but those that are for curves; of the held-out ones that of the weights that are kept."""
    values: dict[str, float] = {}
    for entry in read_json_lines(journal):
        is_later = int(entry["step"]) > kept_step
        values |= {
            name: value
            for name, value in entry.items()
            if "/" in name and not name.startswith(IMAGE_BY_TIME) and not (is_later and name.startswith(VALIDATION))
        }
    return values


def tables(journal: Path) -> dict[str, str]:
    """The course as CSV files, by their names: one row a step at which anything of the file was reported."""
    steps: dict[int, dict[str, float]] = {}
    for entry in read_json_lines(journal):
        steps.setdefault(int(entry["step"]), {}).update(entry)
    named = {name for values in steps.values() for name in values if name.startswith(X0_ERROR)}
    levels = sorted((name.removeprefix(X0_ERROR) for name in named), key=float)
    by_level = {"validation.csv": {X0_ERROR_COLUMN + level: X0_ERROR + level for level in levels}}
    return {file: _csv(steps, columns | by_level.get(file, {})) for file, columns in TABLES.items()}


def _csv(steps: Mapping[int, Mapping[str, float]], columns: Mapping[str, str]) -> str:
    reported = [step for step in sorted(steps) if not steps[step].keys().isdisjoint(columns.values())]
    # A column that no step has (no text stands behind an image, say) is left out.
    there = {column: name for column, name in columns.items() if any(name in steps[step] for step in reported)}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", *there])
    for step in reported:
        values = (steps[step].get(name) for name in there.values())
        writer.writerow([step, *("" if value is None else f"{value:.6g}" for value in values)])
    return text.getvalue()
