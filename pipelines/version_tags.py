"""What stands on a registered version: the figures that decide with their intervals, what it was made from, parity, engines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.evaluation.metrics import Figure, table
from components.runtime.ancestors import ANCESTORS
from components.runtime.provenance import origin_tags
from components.training.transformer.pretrained_files import PRETRAINED
from core.files import read_fields, read_json
from export.bundle import Bundle
from pipelines import paths
from pipelines.promotion import rule_of
from pipelines.sections import Params

INTERVALS = paths.EVALUATION / "intervals.json"
TENSORRT = paths.REPORTS / "export/tensorrt.json"
# Of a run's origin what says from which code and data a version comes.
ORIGIN = ("mlflow.source.git.", "dvc.")
# What a version was made from, by kinds of manifests.
MADE_FROM = ("documents", "latents", "tokenizer", "autoencoder", "train", "evaluation")


def version_tags(params: Params, bundle: Bundle, metrics: Mapping[str, float]) -> dict[str, str]:
    """Name -> value, both as people read them in the list of versions."""
    read, intervals = rule_of(params.register).read, read_json(INTERVALS) if INTERVALS.is_file() else {}
    figures = {each.key: _text(each, intervals.get(each.key)) for each in table(metrics) if each.key in read}
    graphs = read_fields(paths.PARITY, "graphs")["graphs"]
    ancestors = bundle.manifest.get(ANCESTORS, {})
    return {
        **figures,
        **{f"onnx_error/{name}": f"{each['largest_error']}" for name, each in graphs.items()},
        **{f"{kind}_digest": ancestors[kind] for kind in MADE_FROM if kind in ancestors},
        **{f"{PRETRAINED}_{key}": value for key, value in bundle.manifest.get(PRETRAINED, {}).items()},
        **{key: value for key, value in origin_tags().items() if key.startswith(ORIGIN)},
        "engines": f"ONNX Runtime (opset {bundle.generation.opset}); TensorRT {_tensorrt()}",
    }


def _text(figure: Figure, interval: Mapping[str, Any] | None) -> str:
    if interval is None:
        return figure.text(4)
    return f"{figure.value:.4f} ({interval['low']:.4f} to {interval['high']:.4f})"


def _tensorrt() -> str:
    """Whether an engine was built where the bundle was, or why not."""
    return str(read_json(TENSORRT).get("why", "unknown")) if TENSORRT.is_file() else "unknown"
