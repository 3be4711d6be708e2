"""The results of the last run: a short table of every metric with its meaning, and where the rest is.

`--check-params` only validates params.yaml, so that `make repro` refuses a wrong value before any work.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.evaluation.metrics import table
from core.files import read_fields, read_json
from pipelines import paths, stage
from pipelines.params import load

WHERE = {
    "report": paths.REPORTS / "evaluate" / "index.html",
    "pictures": paths.REPORTS / "evaluate" / "samples.png",
    "predictions": paths.PREDICTIONS,
    "bundle": paths.BUNDLE,
}


def main() -> int:
    """Print the results, or check the parameters alone; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.summary", description=__doc__)
    parser.add_argument("--check-params", action="store_true", help="only validate params.yaml")
    arguments = parser.parse_args()

    def work() -> None:
        load(paths.PARAMS)
        if not arguments.check_params:
            print_results()

    return stage.exit_code("", work)


def print_results() -> None:
    """The table, then the places."""
    from rich.console import Console
    from rich.table import Table

    # A pipe or a log has no width of its own; wrapping there would break the lines apart.
    console = Console(width=None if sys.stdout.isatty() else 150)
    rows = Table("metric", "value +- standard error", "better", "meaning", title="held-out results")
    for figure in table(read_json(paths.REPORTS / "evaluate" / "metrics.json")):
        rows.add_row(figure.key, figure.text(3), figure.metric.better, figure.metric.meaning)
    console.print(rows)
    for name, place in places():
        console.print(f"{name:>16}  {place}", highlight=False, soft_wrap=True)


def places() -> Iterator[tuple[str, str]]:
    """Where each result is, and how to look at it."""
    for name, path in WHERE.items():
        if path.exists():
            yield name, str(path)
    worst = max(_errors(read_json(paths.REPORTS / "export" / "parity.json")), default=0.0)
    yield "ONNX parity", f"largest error {worst:.1e}  (reports/export/parity.json)"
    version = read_fields(paths.REPORTS / "register" / "version.json", "name", "version", "aliases")
    yield "registered model", f"{version['name']} version {version['version']}, aliases: {', '.join(version['aliases'])}"
    yield "MLflow", "make ui, then http://127.0.0.1:5000" if Path("mlflow.db").exists() else "at MLFLOW_TRACKING_URI"


def _errors(tree: Any) -> Iterator[float]:
    """Every max_abs of the parity report."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            if key == "max_abs":
                yield float(value)
            else:
                yield from _errors(value)
    elif isinstance(tree, list):
        for item in tree:
            yield from _errors(item)


if __name__ == "__main__":
    sys.exit(main())
