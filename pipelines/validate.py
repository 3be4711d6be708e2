"""Stop the pipeline where documents, or latents, are not what the next stage needs; set single bad rows aside.

data/documents | data/latents, artifacts/autoencoder -> reports/validate/<which>.json, data/quarantine/<which>.jsonl,
reports/validate/data_docs/<which>
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from components.data.gate.suites import judge_documents, judge_latents
from components.data.quarantine import write_quarantine
from components.runtime.failure import GateRefused
from components.runtime.files import MANIFEST, read_manifest, sha256, write_json
from pipelines import paths, stage
from pipelines.params import Params, load

if TYPE_CHECKING:
    import pandas as pd

    from components.data.gate.verdict import Verdict

DATA_DOCS = paths.REPORTS / "validate" / "data_docs"


def main(params: Params, which: str) -> None:
    """Check one kind of table; its report, quarantine and Data Docs are written whatever the verdict is."""
    judged = _documents(params) if which == "documents" else _latents(params)
    report = paths.REPORTS / "validate" / f"{which}.json"
    write_quarantine(paths.QUARANTINE / f"{which}.jsonl", judged.quarantined)
    write_json(report, judged.to_dict())
    page = DATA_DOCS / which / "index.html"
    for warning in judged.warnings:
        print(f"{which}: warning: {warning}", flush=True)
    if judged.refusals:
        more = f" (and {len(judged.refusals) - 1} more)" if len(judged.refusals) > 1 else ""
        raise GateRefused(f"{judged.refusals[0]}{more}; see {report} or open {page}")
    print(
        f"{which}: {len(judged.findings)} expectations checked, {len(judged.quarantined)} rows set aside;"
        f" see {report} or open {page}"
    )


def _documents(params: Params) -> Verdict:
    manifest = read_manifest(paths.DOCUMENTS, kind="documents")
    table = _read(paths.DOCUMENTS / "table.parquet")
    checks = params.validate.documents
    return judge_documents(table, checks, image_side_px=manifest["image_side_px"], docs=DATA_DOCS / "documents")


def _latents(params: Params) -> Verdict:
    manifest = read_manifest(paths.LATENTS, kind="latents")
    table = _read(paths.LATENTS / "table.parquet")
    autoencoder = sha256(paths.AUTOENCODER / MANIFEST)
    checks, docs = params.validate.latents, DATA_DOCS / "latents"
    return judge_latents(paths.LATENTS, table, manifest, checks, autoencoder=autoencoder, docs=docs)


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd

    return pd.read_parquet(path)


if __name__ == "__main__":
    arguments = stage.parse("validate", __doc__, ("which", ["documents", "latents"], "what to check"))
    sys.exit(stage.execute(f"validate-{arguments.which}", lambda: main(load(arguments.params, arguments.set), arguments.which)))
