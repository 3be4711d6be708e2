"""Export the trained model as one bundle: safetensors, tokenizer, ONNX graphs checked against torch, TensorRT if found.

artifacts/{train, autoencoder}, data/tokenizer, reports/evaluate/{metrics, intervals}.json -> artifacts/bundle, reports/export
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.training.transformer.pretrained_files import PRETRAINED
from core.errors import BadInput, GateRefused
from core.files import atomic_replace, fresh_folder, read_json, sha256, write_json
from core.manifest import write_manifest
from export.builder.make_bundle import Evaluated, Sources, build_bundle, build_tensorrt, problems
from export.builder.parity import reported
from export.bundle import KIND, bundle_digest, open_bundle
from model.generation.requests import SamplingOptions
from pipelines import paths, stage
from pipelines.ancestry import given, preparation_of
from pipelines.sections import Params

METRICS, INTERVALS = paths.EVALUATION / "metrics.json", paths.EVALUATION / "intervals.json"
REPORT = paths.PARITY
TENSORRT = paths.REPORTS / "export/tensorrt.json"


def main(params: Params) -> None:
    """Build the bundle, publish it where parity holds, and build TensorRT's engine where it is found."""
    manifests, ancestors = given("tokenizer", "autoencoder", "train", "evaluation")
    sources = Sources(paths.TRAIN, paths.AUTOENCODER, paths.TOKENIZER)
    folder = fresh_folder(paths.WORK / "export/bundle")
    intervals = read_json(INTERVALS) if INTERVALS.is_file() else {}
    began_with = manifests["train"].get(PRETRAINED, {})
    evaluated = Evaluated(read_json(METRICS), sampling_of(manifests["evaluation"]), intervals, ancestors, began_with)
    preparation = preparation_of("autoencoder", manifests)
    parity = build_bundle(sources, folder, params.export, preparation=preparation, evaluated=evaluated)
    write_json(REPORT, reported(parity))
    for graph, entry in parity["graphs"].items():
        print(f"{graph}: largest error {entry['largest_error']:.1e}, allowed {entry['limit']:.0e}", flush=True)
    if found := problems(parity):
        raise GateRefused(f"{'; '.join(found)}; every shape set's error is in {REPORT}")
    model = manifests["train"]["files"]["model.safetensors"]
    facts = {"model_sha256": model["sha256"], "parity_sha256": sha256(REPORT), "ancestors": ancestors}
    facts |= {PRETRAINED: began_with} if began_with else {}
    manifest = write_manifest(folder, kind=KIND, **facts)
    atomic_replace(folder, paths.BUNDLE)
    tensorrt = build_tensorrt(open_bundle(paths.BUNDLE), params.export, paths.ENGINES)
    write_json(TENSORRT, tensorrt._asdict())
    print(f"TensorRT engine {tensorrt.why}", flush=True)
    print(f"bundle {bundle_digest(manifest)[:12]} in {paths.BUNDLE}", flush=True)


def sampling_of(evaluation: Mapping[str, Any]) -> SamplingOptions:
    """How the evaluation of this manifest generated its pictures; BadInput for one from before it was noted."""
    if "sampling" not in evaluation:
        raise BadInput(f"{paths.EVALUATION} does not say how its pictures were generated; run `dvc repro`, which makes it anew")
    return SamplingOptions(**evaluation["sampling"])


if __name__ == "__main__":
    stage.run("export", __doc__, main)
