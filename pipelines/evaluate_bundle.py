"""Measure a bundle as it is served: pictures and captions by the engine that runs it here, with the settings of `evaluate`.

The bundle's likelihoods and losses are those of its weights in torch, on every engine: they take whole packed rows, which the
exported step does not. Writes metrics.json, intervals.json and manifest.json (engine, seeds, counts and settings).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from components.evaluation.intervals import as_rows
from components.evaluation.metrics import table
from components.evaluation.results import EvaluationTarget
from components.evaluation.sampling import sampling_facts
from components.evaluation.suite import measure
from components.runtime.ancestors import ANCESTORS, content_digest
from components.runtime.cluster import device
from core.files import read_json, write_json
from core.manifest import manifest_of, write_manifest
from core.tokenizer import read_tokenizer
from export.bundle import AUTOENCODER, TOKENIZER, Bundle, open_bundle
from export.engine_key import MAX_ROWS
from export.run.engine_onnxruntime import AutoencoderGraphs
from export.run.engines import AUTO_ORDER, OpenedEngine, open_engine
from model.latents.autoencoder import Autoencoder
from model.transfusion import Transfusion
from pipelines import paths
from pipelines.ancestry import given
from pipelines.evaluation_inputs import measured_with, origin_of, read_data
from pipelines.options import add_parameters
from pipelines.params import load
from pipelines.sections import Params
from pipelines.stage import exit_code

NAME, ENGINES = "evaluate_bundle", ("auto", *AUTO_ORDER, "torch")
REPORT = paths.REPORTS / NAME
# Of torch's own rounding: what differs by less is the same figure.
SAME = 1e-9


def main() -> int:
    """Measure as the command line says; returns the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m pipelines.{NAME}", description=__doc__)
    parser.add_argument("bundle", nargs="?", type=Path, default=paths.BUNDLE, help=f"its folder (default: {paths.BUNDLE})")
    parser.add_argument("--engine", choices=ENGINES, default="auto", help="auto takes the best that runs here")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help=f"(default: {REPORT}/ENGINE)")
    add_parameters(parser)
    options = parser.parse_args()

    def work() -> None:
        run(load(options.params, options.set), options.bundle, options.engine, options.out)

    return exit_code(f"{NAME}: ", work)


def run(params: Params, folder: Path, wanted: str, out: Path | None = None) -> dict[str, float]:
    """Measure the bundle, write its figures and print them beside those of its evaluation; returns them.

    BadInput where the data here are not those that the bundle was made from, or the engine does not run here.
    """
    bundle = open_bundle(folder)
    verdicts = ("documents verdict", "latents verdict")
    manifests, ancestors = given("tokenizer", "documents", "autoencoder", "latents", *verdicts, bundle=bundle.manifest)
    opened = open_engine(bundle, wanted, engines=paths.ENGINES)
    print(*(f"passed over: {each}" for each in opened.passed_over), f"engine: {opened.name}", sep="\n", flush=True)
    target = target_of(bundle, opened)._replace(origin=origin_of(manifests["autoencoder"]))
    kept_out = [(digit, colour) for digit, colour in manifests["documents"]["kept_out_pairs"]]
    results = measure(target, *read_data(params), kept_out, params.evaluate)
    out = out or REPORT / opened.name
    write_json(out / "metrics.json", results.metrics)
    write_json(out / "intervals.json", as_rows(results.intervals))
    facts = {"facts": results.facts, "sampling": sampling_facts(target.model.config, params.evaluate)}
    names = ["metrics.json", "intervals.json"]
    about = measured_with(params, opened.name)
    write_manifest(out, kind="bundle evaluation", names=names, ancestors=ancestors, measured_with=about, **facts)
    print(*beside(results.metrics, evaluated(bundle, about)), f"figures in {out}", sep="\n", flush=True)
    return results.metrics


def target_of(bundle: Bundle, opened: OpenedEngine) -> EvaluationTarget:
    """The bundle's weights, its engine, and its graphs where pictures are decoded."""
    model, autoencoder = Transfusion.from_pretrained(bundle.folder), Autoencoder.from_pretrained(bundle.folder / AUTOENCODER)
    tokenizer, graphs = read_tokenizer(bundle.folder / TOKENIZER), AutoencoderGraphs(bundle)
    # TensorRT builds an engine for so many rows; the others take any number.
    generates = {"engine": opened.engine, "max_rows": MAX_ROWS if opened.name == "tensorrt" else None}
    return EvaluationTarget(model.to(device()), autoencoder.to(device()), tokenizer, decoder=graphs.decode, **generates)


def evaluated(bundle: Bundle, about: dict[str, Any]) -> dict[str, float]:
    """The figures of the evaluation that the bundle was made with, where they are here and of the same settings; else none.

    The batch size is no such setting: no figure depends on it.
    """
    if not paths.EVALUATION.exists():
        return {}
    manifest = manifest_of(paths.EVALUATION, kind="evaluation")
    is_its_own = bundle.manifest.get(ANCESTORS, {}).get("evaluation") == content_digest(manifest)
    # As JSON has them: without tuples.
    theirs, ours = manifest.get("measured_with", {}).get("settings", {}), json.loads(json.dumps(about["settings"]))
    same_settings = theirs | {"batch_size": 0} == ours | {"batch_size": 0}
    return read_json(paths.EVALUATION / "metrics.json") if is_its_own and same_settings else {}


def beside(metrics: dict[str, float], others: dict[str, float]) -> list[str]:
    """A line a figure; where the evaluation has it, with that."""
    lines = []
    for figure in table(metrics):
        other = others.get(figure.key)
        same = other is not None and abs(figure.value - other) <= SAME * abs(other)
        said = "" if other is None else "  the same in evaluate" if same else f"  evaluate: {other:.4f}"
        lines.append(f"{figure.key:40}  {figure.text(4)}{said}")
    return lines if others else [*lines, "no evaluation of this bundle with these settings is here to compare with"]


if __name__ == "__main__":
    sys.exit(main())
