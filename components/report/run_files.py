"""What a run left in reports/ and beside it, read as far as it is there."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from components.report.pictures import file_uri
from core.errors import BadInput
from core.files import read_json


@dataclass(frozen=True)
class Example:
    """A document of the corpus. pictures: data URIs."""

    texts: Sequence[str]
    pictures: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run's files."""

    reports: Path
    pipeline: Mapping[str, Any]
    """dvc.yaml."""
    settings: Mapping[str, Any]
    """params.yaml, nested by section."""
    training: Mapping[str, Any]
    """Of the training its `run_id` and, where it has one, `name`."""
    examples: Mapping[str, Sequence[Example]]
    """Of each corpus the first training documents."""

    def read(self, name: str) -> Any:
        """A JSON report; an empty table where it is not there. BadInput for one that is broken."""
        path = self.reports / name
        return read_json(path) if path.is_file() else {}

    def columns(self, name: str) -> dict[str, list[float | None]]:
        """Columns of a CSV with a heading line; an empty cell is None, a missing file has no columns.

        BadInput where it does not hold numbers, such as one that a merge left its markers in.
        """
        path = self.reports / name
        if not path.is_file():
            return {}
        try:
            with path.open(newline="") as file:
                rows = list(csv.DictReader(file))
            if any(None in row for row in rows):
                raise ValueError("a line has more cells than the heading")
            names = list(rows[0]) if rows else []
            return {name: [float(row[name]) if row[name] else None for row in rows] for name in names}
        except (ValueError, csv.Error) as error:
            raise BadInput(f"{path} is no table of numbers ({error}); delete it and run `dvc repro`") from None

    def picture(self, name: str) -> str | None:
        """A picture as a data URI; None where it is not there."""
        path = self.reports / name
        return file_uri(path.read_bytes()) if path.is_file() else None

    @cached_property
    def metrics(self) -> dict[str, float]:
        """By the keys of METRICS, and standard errors."""
        return self.read("evaluate/metrics.json")

    @cached_property
    def intervals(self) -> dict[str, dict[str, Any]]:
        """Of the figures that have one."""
        return self.read("evaluate/intervals.json")

    @cached_property
    def shown(self) -> dict[str, Any]:
        """What the evaluation left to look at."""
        return self.read("evaluate/shown.json")

    @cached_property
    def notes(self) -> dict[str, dict[str, Any]]:
        """How each stage ran, by its name as DVC prints it."""
        files = sorted((self.reports / "ran").glob("*.json"))
        return {path.stem.replace("-", "@"): read_json(path) for path in files}
