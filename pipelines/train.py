"""Train the Transfusion model on packed rows of text and latents, going on from the last checkpoint of a killed run.

data/latents, data/tokenizer, artifacts/autoencoder -> artifacts/train, reports/train/{history.csv,metrics.json,samples.png}
"""

from __future__ import annotations

import shutil
from dataclasses import asdict

from components.runtime.cluster import num_training_workers, run_workers, start_ray
from components.runtime.files import digest, publish, read_json, sha256, write_json, write_manifest, write_text
from components.runtime.tracking import RunIdentity, Tracker, open_run
from components.training.journal import history_csv
from components.training.work import Work, code_digest, is_finished
from components.training.worker import run_worker
from pipelines import paths, stage
from pipelines.params import Params

REPORT = paths.REPORTS / "train"


def main(params: Params) -> None:
    config = params.train
    latents = sha256(paths.LATENTS / "manifest.json")
    facts = {"config": digest(asdict(config)), "latents": latents, "code": code_digest()}
    folder = (paths.WORK / "train" / digest(facts)[:16]).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    work = Work(
        config=config,
        run=_open_run(params, folder, facts),
        latents=paths.LATENTS.absolute(),
        quarantine=(paths.QUARANTINE / "latents.jsonl").absolute(),
        tokenizer=paths.TOKENIZER.absolute(),
        autoencoder=paths.AUTOENCODER.absolute(),
        folder=folder,
        store=folder / "run",
    )
    if not is_finished(work):
        with start_ray():
            settings = {"work": work}
            run_workers(
                run_worker,
                settings,
                num_workers=num_training_workers(),
                storage_path=folder,
                run_name="run",
                lines=work.lines,
            )
    _publish(work, facts)


def _open_run(params: Params, folder: paths.Path, facts: dict[str, str]) -> RunIdentity:
    """The run of this folder's first start, or a new one; it has the parameters, the lineage and the digests."""
    known = folder / "run.json"
    run_id = read_json(known)["run_id"] if known.exists() else ""
    tags = {f"{name}.digest": value for name, value in facts.items()}
    identity = open_run("train", run_id=run_id, tags=tags | {"mlflow.note.content": "Made by `dvc repro train`."})
    if identity.run_id != run_id:
        write_json(known, identity._asdict())
        tracker = Tracker(identity)
        tracker.params(asdict(params))
        tracker.dataset("latents", digest=facts["latents"], source=paths.LATENTS, context="training")
    print(
        f"train: run {identity.run_id} in {identity.tracking_uri}, config {facts['config'][:12]}, data {facts['latents'][:12]}",
        flush=True,
    )
    return identity


def _publish(work: Work, facts: dict[str, str]) -> None:
    """Reports first, the finished model last; then what was unfinished goes."""
    REPORT.mkdir(parents=True, exist_ok=True)
    summary = read_json(work.finished / "summary.json")
    write_text(REPORT / "history.csv", history_csv(work.journal))
    write_json(REPORT / "metrics.json", summary)
    shutil.copyfile(work.samples, REPORT / "samples.png")
    tracker = Tracker(work.run)
    tracker.artifact(REPORT, "train")
    tracker.finish()
    (work.finished / "summary.json").unlink()
    write_json(work.finished / "run.json", work.run._asdict() | {"digests": facts})
    write_manifest(work.finished, kind="train", step=work.config.max_steps, digests=facts)
    publish(work.finished, paths.TRAIN)
    shutil.rmtree(work.folder.parent)
    print(f"train: {summary['perf/tokens_per_s']:.0f} tokens/s; see {REPORT / 'samples.png'} and `mlflow ui`")


if __name__ == "__main__":
    stage.run("train", __doc__, main)
