"""Measure the trained model on held-out data and picture what it makes, for the report and in an MLflow run of its own.

artifacts/{train, autoencoder}, data/{documents, latents, tokenizer, quarantine} -> reports/evaluate,
artifacts/evaluation
"""

from __future__ import annotations

from components.evaluation.intervals import as_rows
from components.evaluation.kept_items import keep_items, measured_on
from components.evaluation.metrics import headline
from components.evaluation.pictures import sample_grid
from components.evaluation.report import caption_rows, diffusion_rows, lines, shown
from components.evaluation.sampling import sampling_facts
from components.evaluation.suite import measure
from components.runtime.allocator import keep_freed_memory
from components.runtime.tracking import now_ms
from core.files import write_bytes, write_json
from core.manifest import write_manifest
from model.transfusion import Transfusion
from pipelines import paths, stage
from pipelines.ancestry import given
from pipelines.evaluation_inputs import measured_with, origin_of, read_data, target_of
from pipelines.evaluation_run import record
from pipelines.sections import Params

REPORT = paths.EVALUATION


def main(params: Params) -> None:
    """Measure everything, write the report, and log it."""
    keep_freed_memory()
    started_ms, verdicts = now_ms(), ("documents verdict", "latents verdict")
    manifests, ancestors = given("tokenizer", "documents", "autoencoder", "latents", "train", *verdicts)
    target = target_of(Transfusion.from_pretrained(paths.TRAIN), origin_of(manifests["autoencoder"]))
    held_out, training = read_data(params)
    kept_out = [(digit, colour) for digit, colour in manifests["documents"]["kept_out_pairs"]]
    results = measure(target, held_out, training, kept_out, params.evaluate)
    write_bytes(REPORT / "samples.png", sample_grid(results.generated))
    write_json(REPORT / "shown.json", shown(results))
    write_json(REPORT / "diffusion.json", diffusion_rows(results.diffusion))
    write_json(REPORT / "metrics.json", results.metrics)
    write_json(REPORT / "headline.json", headline(results.metrics))
    write_json(REPORT / "intervals.json", as_rows(results.intervals))
    sampling = sampling_facts(target.model.config, params.evaluate)
    manifest = write_manifest(
        REPORT,
        kind="evaluation",
        names=["metrics.json"],
        ancestors=ancestors,
        sampling=sampling,
        facts=results.facts,
        measured_with=measured_with(params, "torch"),
    )
    about = measured_on(held_out, training, target.model, params.evaluate, results)
    keep_items(paths.EVALUATION_ITEMS, results.items, about, evaluation=manifest, pictures=results.generated)
    documents = (paths.DOCUMENTS, ancestors["documents"])
    record(params, REPORT, paths.TRAIN, documents=documents, captions=list(caption_rows(results)), started_ms=started_ms)
    print(*lines(results), f"figures in {REPORT / 'metrics.json'}, pictures in {REPORT / 'samples.png'}", sep="\n", flush=True)


if __name__ == "__main__":
    stage.run("evaluate", __doc__, main)
