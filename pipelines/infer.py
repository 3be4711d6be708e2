"""Answer a file of requests with the bundle: batches over a pool of processes, each with an engine of its own.

infer.requests, artifacts/bundle -> artifacts/predictions, reports/infer/predictions.png, reports/infer/throughput.json
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

from components.runtime.cluster import map_over_actors, num_map_actors, start_ray
from components.runtime.failure import BadInput
from components.runtime.files import digest, publish, sha256, write_bytes, write_json, write_manifest
from export.batch import BatchActor, actor_settings, batches
from export.bundle import Bundle, bundle_digest, open_bundle
from export.config import InferConfig
from export.engines import open_engine
from export.failure import ExportRefused
from export.predictions import IMAGES, JOURNAL, append_journal, figures, gather, read_journal, sheet, write_predictions
from export.requests import RequestLine, read_requests
from pipelines import paths, stage
from pipelines.params import Params

# Where the export stage keeps the engines it built on this machine.
ENGINES = paths.WORK / "engines"


def main(params: Params) -> None:
    config, path = params.infer, Path(params.infer.requests)
    try:
        read, bundle = read_requests(path), open_bundle(paths.BUNDLE)
        opened = open_engine(bundle, config.engine, engines=ENGINES)
    except ExportRefused as error:
        raise BadInput(str(error)) from None
    for reason in opened.passed_over:
        print(f"infer: passed over {reason}", flush=True)
    if not read.good:
        first = f"; line {read.bad[0].line}: {read.bad[0].reason}" if read.bad else ""
        raise BadInput(f"{path} holds no usable request{first}")
    work = paths.WORK / "infer" / digest([bundle_digest(bundle.manifest), asdict(config), sha256(path)])[:16]
    (work / IMAGES).mkdir(parents=True, exist_ok=True)
    num_resumed, started_s = len(read_journal(work)), time.monotonic()
    _answer(read.good, bundle, config, opened.name, work)
    seconds = time.monotonic() - started_s
    predictions = gather(read, read_journal(work))
    records = write_predictions(work, predictions)
    write_bytes(paths.REPORTS / "infer/predictions.png", sheet(predictions, work, path.parent))
    report = figures(predictions, seconds=seconds, num_resumed=num_resumed) | {"engine": opened.name}
    (work / JOURNAL).unlink()
    write_manifest(work, kind="predictions", records=records, bundle_sha256=bundle_digest(bundle.manifest))
    publish(work, paths.PREDICTIONS)
    write_json(paths.REPORTS / "infer/throughput.json", report | {"passed_over": list(opened.passed_over)})
    for bad in predictions.bad:
        print(f"infer: {path}:{bad.line} set aside: {bad.reason}", flush=True)
    print(f"{report['requests']} answered by {opened.name} in {seconds:.1f} s, in {paths.PREDICTIONS}", flush=True)


def _answer(lines: list[RequestLine], bundle: Bundle, config: InferConfig, engine: str, work: Path) -> None:
    """Answer every line that the journal does not hold yet, and note each batch as it is done."""
    done = read_journal(work)
    items = list(batches([line for line in lines if line.line not in done], config.batch_size))
    settings = actor_settings(bundle.folder, engine, ENGINES, config, work)
    if not items:
        return
    started_s, num_done = time.monotonic(), 0
    with start_ray():
        for result in map_over_actors(items, BatchActor, settings, num_map_actors()):
            append_journal(work, result["answers"])
            num_done += len(result["answers"])
            print(f"{num_done} requests, {num_done / (time.monotonic() - started_s):.2f} a second", flush=True)


if __name__ == "__main__":
    stage.run("infer", __doc__, main)
