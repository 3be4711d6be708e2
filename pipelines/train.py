"""Train the Transfusion model on packed rows of text and latents, going on from the last checkpoint of a killed run.

data/latents, data/tokenizer, artifacts/autoencoder, data/quarantine/latents.jsonl
-> artifacts/train, reports/train/{history.csv,validation.csv,metrics.json,samples.png,samples}
"""

from __future__ import annotations

import shutil
from dataclasses import asdict

from components.runtime.devices import num_training_workers
from components.runtime.recording import recorded
from components.runtime.tracking import Tracker
from components.training.pictures import over_training, sheet_name
from components.training.transformer.journal import TABLES, tables
from components.training.transformer.preflight import check_training
from components.training.transformer.run import FINISHED, TransformerRun, digests_of, open_training_run
from components.training.transformer.worker import train
from core.files import atomic_replace, digest, fresh_folder, read_json, write_json, write_text
from core.manifest import write_manifest
from pipelines import paths, stage
from pipelines.ancestry import given
from pipelines.described import training
from pipelines.pretrained import origin_of, start_of
from pipelines.sections import Params
from pipelines.unfinished import forget

REPORT = paths.REPORTS / "train"


def main(params: Params) -> None:
    # Of the latents, workers check what they read.
    """Train to the last step, or only publish what an earlier process finished."""
    _, ancestors = given("tokenizer", "autoencoder", "latents", "latents verdict", parts={"latents": None})
    num_workers, start = num_training_workers(), start_of(params.train)
    given_to = {"latents": paths.LATENTS, "tokenizer": paths.TOKENIZER, "autoencoder": paths.AUTOENCODER}
    check_training(params.train, **given_to, num_workers=num_workers, start=start)
    quarantine = paths.QUARANTINE / "latents.jsonl"
    digests = digests_of(params.train, paths.LATENTS, quarantine, start)
    folder = (paths.WORK / "train" / digest(digests)[:16]).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    about = training(params, digests)
    identity = open_training_run(folder, about=about, latents=paths.LATENTS, digests=digests)
    absolute = {name: path.absolute() for name, path in {**given_to, "quarantine": quarantine}.items()}
    run = TransformerRun(config=params.train, identity=identity, folder=folder, start=start, **absolute)
    with recorded(identity) as tracker:
        if not run.is_finished(FINISHED):
            run.run_workers(train, num_workers)
        publish(run, about.name, digests, ancestors, tracker)


def publish(run: TransformerRun, name: str, digests: dict[str, str], ancestors: dict[str, str], tracker: Tracker) -> None:
    """Reports first, the finished model last; then what was unfinished goes."""
    summary = read_json(run.finished / "summary.json")
    for file, table in tables(run.journal).items():
        for folder in (REPORT, run.finished):  # beside the weights, so that evaluation pictures these weights' history
            write_text(folder / file, table)
    write_json(REPORT / "metrics.json", summary)
    kept_step, folder = summary["selected_step"], fresh_folder(REPORT / "samples")
    for file in over_training(run.samples, kept_step):
        shutil.copyfile(file, folder / file.name)
    shutil.copyfile(run.samples / sheet_name(kept_step), REPORT / "samples.png")
    tracker.artifact(REPORT, "train")
    write_json(run.finished / "run.json", run.identity.facts() | {"name": name, "digests": digests})
    facts = {"digests": digests, "ancestors": ancestors, "incidental": ["run.json", "summary.json", *TABLES]}
    facts |= origin_of(run.config, digests)
    write_manifest(run.finished, kind="train", step=kept_step, settings=asdict(run.config), **facts)
    atomic_replace(run.finished, paths.TRAIN)
    forget(run.folder)
    print(f"train: {summary['perf/tokens_per_s']:.0f} tokens/s; see {REPORT / 'samples.png'} and `make ui`", flush=True)
    if run.config.selection.is_used:
        print(f"train: {summary['selected_because']}", flush=True)


if __name__ == "__main__":
    stage.run("train", __doc__, main)
