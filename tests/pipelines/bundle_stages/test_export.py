"""export writes a bundle that answers like the model, or none, and its reports either way."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from core.errors import GateRefused
from core.files import read_json
from core.manifest import read_manifest
from export.builder import make_bundle
from export.builder.graphs import GraphSpec
from export.builder.to_onnx import ExportedGraph
from export.bundle import open_bundle
from pipelines import export
from pipelines.sections import Params
from tests.pipelines.bundle_stages.trained_folder import SAMPLING, SIDE_PX


def test_export_writes_a_bundle_and_its_reports(exported: Path) -> None:
    manifest = read_manifest(exported, kind="bundle")
    assert set(manifest["ancestors"]) == {"tokenizer", "autoencoder", "train", "evaluation"}
    generation = open_bundle(exported).generation
    assert (generation.image_side_px, generation.image_background) == (SIDE_PX, "white")
    assert (generation.guidance_scale, generation.num_solver_steps, generation.solver) == tuple(SAMPLING.values())
    graphs = read_json(Path("reports/export/parity.json"))["graphs"]
    assert all(0 < entry["largest_error"] <= entry["limit"] for entry in graphs.values())
    tensorrt = read_json(Path("reports/export/tensorrt.json"))
    assert tensorrt["built"] or tensorrt["why"].startswith("not built: ")


def test_a_graph_above_the_limit_stops_the_stage_and_keeps_the_report(
    exported: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    def again(spec: GraphSpec, path: Path, *, opset: int, external_data: bool) -> ExportedGraph:
        """The graphs of the same model, which take half a minute to make, are measured anew."""
        for part in exported.glob(f"{path.name}*"):
            shutil.copy(part, path.parent)
        return ExportedGraph(path, opset, num_nodes=0, seconds=0.0)

    monkeypatch.setattr(make_bundle, "export_graph", again)
    report, kept = Path("reports/export/parity.json"), (exported / "manifest.json").read_bytes()
    before = report.read_bytes()
    report.unlink()
    # Just below what was measured, so that a limit which is a little too wide lets it through.
    limit = 0.8 * json.loads(before)["graphs"]["step.onnx"]["largest_error"]
    strict = dataclasses.replace(params, export=dataclasses.replace(params.export, max_transformer_error=limit))
    with pytest.raises(GateRefused, match=r"step\.onnx differs from eager torch by .*parity\.json"):
        export.main(strict)
    # Equal but for the limit: the report holds nothing of the run.
    kept_report, first = read_json(report), json.loads(before)
    assert {kept_report["graphs"][graph].pop("limit") for graph in ("step.onnx", "end_to_end")} == {limit}
    assert {first["graphs"][graph].pop("limit") for graph in ("step.onnx", "end_to_end")} == {0.0001}
    assert kept_report == first
    report.write_bytes(before)
    assert (exported / "manifest.json").read_bytes() == kept
