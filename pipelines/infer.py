"""Answer a file of requests with the bundle: batches over a pool of processes, each with an engine of its own.

infer.requests, artifacts/bundle -> artifacts/predictions, reports/infer/predictions.png, reports/infer/throughput.json
"""

from __future__ import annotations

import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from components.runtime.actor_pool import map_over_pool
from components.runtime.cluster import start_ray
from components.runtime.devices import num_map_actors
from core.errors import BadInput
from core.files import atomic_replace, digest, write_bytes, write_json
from core.manifest import write_manifest
from core.text import counted
from export.bundle import bundle_digest, open_bundle
from export.run.batch import BatchActor, actor_settings, after_death, batches
from export.run.journal import append_journal, engines_of, read_journal, unchanged
from export.run.predictions import IMAGES, QUARANTINE, figures, gather, set_aside, sheet, write_predictions
from export.run.requests import read_requests
from pipelines import paths, stage
from pipelines.ancestry import of_bundle
from pipelines.sections import Params
from pipelines.unfinished import forget


def main(params: Params) -> None:
    """Answer every request that has no answer yet, and publish all answers."""
    config, path = params.infer, Path(params.infer.requests)
    read, bundle = read_requests(path), open_bundle(paths.BUNDLE)
    ancestors = of_bundle(bundle.manifest)
    facts = {"bundle_sha256": bundle_digest(bundle.manifest), "requests_sha256": read.sha256, "ancestors": ancestors}
    work = paths.WORK / "infer" / digest([facts, asdict(config)])[:16]
    folder, journal = work / "predictions", work / "journal.jsonl"
    earlier, started_s = unchanged(read_journal(journal, folder), read.good, path.parent), time.monotonic()
    todo = [line for line in read.good if line.line not in earlier]
    settings = actor_settings(bundle.folder, paths.ENGINES, config, folder)
    _answer(list(batches(todo, config.batch_size)), settings, journal)
    # No process makes it where every answer is words, or was there already.
    (folder / IMAGES).mkdir(parents=True, exist_ok=True)
    records = read_journal(journal, folder)
    predictions, engine = gather(read, records), engines_of(records) or config.engine
    report = figures(predictions, seconds=time.monotonic() - started_s, num_resumed=len(earlier))
    write_manifest(folder, kind="predictions", records=write_predictions(folder, predictions), **facts)
    write_bytes(paths.REPORTS / "infer/predictions.png", sheet(predictions, folder, path.parent))
    write_json(paths.REPORTS / "infer/throughput.json", report | {"engine": engine})
    atomic_replace(folder, paths.PREDICTIONS)
    forget(work)
    print(set_aside(path, predictions), end="", flush=True)
    if not predictions.answered:
        raise BadInput(f"none of the requests in {path} has an answer; {paths.PREDICTIONS / QUARANTINE} says why of each")
    print(f"{report['requests']} answered by {engine} in {report['seconds']} s: {paths.PREDICTIONS}", flush=True)


def _answer(items: list[dict[str, Any]], settings: dict[str, Any], journal: Path) -> None:
    """Answer every batch, and note each as it is done."""
    if not items:
        return
    started_s, num_done, passed_over = time.monotonic(), 0, set[str]()
    given_up = partial(after_death, requests_folder=Path(settings["requests_folder"]))
    with start_ray():
        for result in map_over_pool(items, BatchActor, settings, num_map_actors(), given_up):
            for reason in result["passed_over"]:
                if reason not in passed_over:
                    passed_over.add(reason)
                    print(f"infer: passed over {reason}", flush=True)
            append_journal(journal, result["answers"])
            num_done += len(result["answers"])
            rate = num_done / (time.monotonic() - started_s)
            print(f"{counted(num_done, 'request')}, {rate:.2f} a second", flush=True)


if __name__ == "__main__":
    stage.run("infer", __doc__, main)
