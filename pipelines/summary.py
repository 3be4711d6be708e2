"""The results of the last run: the figures that matter, where everything is, and commands to try next.

`--check-params` only validates params.yaml, so that `make repro` refuses a wrong value before any work.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from components.data.demonstration.example_requests import FILE
from components.evaluation.better_guidance import better_scale
from components.evaluation.metrics import HEADLINE, Figure, table
from core.files import read_fields, read_json
from core.manifest import MANIFEST, manifest_of
from pipelines import paths, stage
from pipelines.params import load

# Columns: of a log, and of a terminal at most.
WIDTH = 100
WHERE = {
    "every figure": paths.REPORTS / "index.html",
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
        params = load(paths.PARAMS)
        if not arguments.check_params:
            print_results(params.train.sampling.prompts or requested())

    return stage.exit_code("", work)


def print_results(prompts: Sequence[str]) -> None:
    """The table, the places, and what to try. prompts: of pictures such as the corpus has."""
    from rich.console import Console
    from rich.table import Table

    metrics = read_json(paths.REPORTS / "evaluate" / "metrics.json")
    # In a file or a pipe rich would take 80 columns, and break the keys, which people search for.
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH
    console = Console(width=min(WIDTH, columns), highlight=False)
    if not paths.BUNDLE.exists():
        print("There is no finished model in this folder yet; the figures are those that reports/ came with.\n")
    rows = Table("held-out figure", "value", "meaning", box=None, pad_edge=False)
    for figure in main_figures(metrics):
        lower = " (lower is better)" if figure.metric.better == "lower" else ""
        rows.add_row(figure.key, figure.text(3), figure.metric.meaning + lower)
    console.print(rows)
    for sentence in on_guidance(metrics):
        print(f"\n{textwrap.fill(sentence, WIDTH)}")
    print()
    for name, place in places():
        print(f"{name:>16}  {place}")
    print("\nTo try next, after `. .venv/bin/activate`:")
    for command, what in to_try(metrics, prompts).items():
        print(f"  {command:60}  {what}")


def main_figures(metrics: Mapping[str, float]) -> list[Figure]:
    """Those of HEADLINE that were measured."""
    measured = {figure.key: figure for figure in table(metrics)}
    return [measured[key] for key in HEADLINE.values() if key in measured]


def on_guidance(metrics: Mapping[str, float]) -> Iterator[str]:
    """What the scale was that pictures were drawn with, and whether the evaluation found a better one."""
    folder = paths.REPORTS / "evaluate"
    if not (folder / MANIFEST).exists():
        return
    manifest = manifest_of(folder, kind="evaluation")
    used = manifest.get("facts", {}).get("guidance", {}).get("scale_used")
    if used is not None:
        better = better_scale(metrics, read_json(folder / "intervals.json"), used)
        yield better or f"Pictures were drawn with evaluate.guidance_scale {used:g}; no other scale is shown to be better."


def to_try(metrics: Mapping[str, float], prompts: Sequence[str]) -> dict[str, str]:
    """Up to three commands, and what each does. prompts: of pictures such as the corpus has."""
    if not paths.BUNDLE.exists():
        return {"make repro": "train, evaluate and export a model"}
    # A model of text alone draws nothing.
    draws = any(key.startswith("image/") for key in metrics)
    prompt = min(prompts, key=len, default="")
    picture = {f"python -m export.ask {shlex.quote(prompt)} -o picture.png": "a picture of your prompt"}
    return (picture if draws and prompt else {}) | {
        "make ui": "the run's pages in MLflow",
        "dvc exp run -S train.max_steps=2000": "another value; see make experiments",
    }


def places() -> Iterator[tuple[str, str]]:
    """Where each result is, and how to look at it."""
    for name, path in WHERE.items():
        if path.exists():
            yield name, str(path)
    worst = max(_errors(read_json(paths.REPORTS / "export" / "parity.json")), default=0.0)
    yield "ONNX parity", f"largest error {worst:.1e}  (reports/export/parity.json)"
    version = read_fields(paths.REPORTS / "register" / "version.json", "name", "version", "aliases")
    yield "registered model", f"{version['name']} version {version['version']}, aliases: {', '.join(version['aliases'])}"
    if store := os.environ.get("MLFLOW_TRACKING_URI"):
        # A password may stand before the host.
        yield "MLflow", re.sub(r"//[^/@\s]*@", "//", store)
    elif Path("mlflow.db").exists():
        yield "MLflow", "make ui, then http://127.0.0.1:5000"


def requested() -> list[str]:
    """The prompts of the example requests, which are held-out captions of the corpus; none where ingest has not run."""
    path = paths.REQUESTS / FILE
    requests = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [request["prompt"] for request in requests if request["task"] == "text_to_image"]


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
