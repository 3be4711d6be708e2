"""One page of the whole run, from the reports of all stages before: reports/index.html, which opens without a network.

reports, data/documents, artifacts/train/run.json, dvc.yaml -> reports/index.html
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from components.report.examples import read_examples
from components.report.page import page
from components.report.run_files import Run
from core.files import read_fields, write_text
from pipelines import paths, stage
from pipelines.ancestry import given
from pipelines.sections import Params

PIPELINE = Path("dvc.yaml")
REPORT = paths.REPORTS / "index.html"


def main(params: Params) -> None:
    """Read what the stages left, and write the page."""
    given("documents", "train", "evaluation", parts={"documents": "train/part-00000", "train": "run.json"})
    run = Run(
        reports=paths.REPORTS,
        pipeline=read_pipeline(),
        settings=asdict(params),
        training=read_fields(paths.TRAIN / "run.json", "run_id"),
        examples=read_examples(paths.DOCUMENTS),
    )
    html = page(run)
    write_text(REPORT, html)
    print(f"{len(html) / 2**20:.1f} MiB in {REPORT}, which any browser opens", flush=True)


def read_pipeline() -> dict[str, Any]:
    """dvc.yaml, whose stages the page draws; DVC takes it for no dependency, so that a new wording alone makes no new page."""
    from ruamel.yaml import YAML

    return YAML(typ="safe").load(PIPELINE.read_text())


if __name__ == "__main__":
    stage.run("report", __doc__, main)
