"""Stop the pipeline where documents, or latents, are not what the next stage needs; quarantine single bad documents.

data/documents | data/latents, artifacts/autoencoder -> reports/validate/<which>.json, data/quarantine/<which>.jsonl,
reports/validate/data_docs/<which>
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from components.data.quarantine import validation_facts, write_quarantine
from components.data.validate.suites import validate_documents, validate_latents
from core.errors import GateRefused
from core.files import write_json
from core.text import counted
from pipelines import paths, stage
from pipelines.ancestry import given, preparation_of
from pipelines.params import load
from pipelines.sections import Params

if TYPE_CHECKING:
    import pandas as pd

    from components.data.validate.results import ValidationResult

DATA_DOCS = paths.REPORTS / "validate" / "data_docs"


def main(params: Params, which: str) -> None:
    """Check one kind of table; its report, quarantine and Data Docs are written whatever the result is."""
    result, ancestors = _documents(params) if which == "documents" else _latents(params)
    report, quarantine = paths.REPORTS / "validate" / f"{which}.json", paths.QUARANTINE / f"{which}.jsonl"
    write_quarantine(quarantine, result.quarantined)
    write_json(report, result.to_dict() | validation_facts(which, quarantine, ancestors))
    page = DATA_DOCS / which / "index.html"
    for warning in result.warnings:
        print(f"{which}: warning: {warning}", flush=True)
    if result.refusals:
        more = f" (and {len(result.refusals) - 1} more)" if len(result.refusals) > 1 else ""
        raise GateRefused(f"{result.refusals[0]}{more}; see {report} or open {page}")
    print(
        f"{which}: {len(result.results)} expectations checked, {counted(len(result.quarantined), 'row')} quarantined;"
        f" see {report} or open {page}"
    )


def _documents(params: Params) -> tuple[ValidationResult, dict[str, str]]:
    """The result, and the ancestors of what was validated."""
    manifests, ancestors = given("tokenizer", "documents")
    table = _read(paths.DOCUMENTS / "table.parquet")
    checks = params.validate.documents
    side_px, docs = preparation_of("documents", manifests).side_px, DATA_DOCS / "documents"
    return validate_documents(table, checks, image_side_px=side_px, docs=docs), ancestors


def _latents(params: Params) -> tuple[ValidationResult, dict[str, str]]:
    manifests, ancestors = given("autoencoder", "latents")
    table = _read(paths.LATENTS / "table.parquet")
    checks, docs = params.validate.latents, DATA_DOCS / "latents"
    decoded_by = ancestors["autoencoder"]
    return validate_latents(paths.LATENTS, table, manifests["latents"], checks, autoencoder=decoded_by, docs=docs), ancestors


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd

    return pd.read_parquet(path)


if __name__ == "__main__":
    arguments = stage.parse("validate", __doc__, ("which", ["documents", "latents"], "what to check"))
    sys.exit(stage.execute(f"validate-{arguments.which}", lambda: main(load(arguments.params, arguments.set), arguments.which)))
