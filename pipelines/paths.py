"""Where do the stages read and write? Every path of the pipeline, relative to the repository root; dvc.yaml names the same."""

from pathlib import Path

PARAMS = Path("params.yaml")

DOCUMENTS = Path("data/documents")
TOKENIZER = Path("data/tokenizer")
REQUESTS = Path("data/requests")
QUARANTINE = Path("data/quarantine")
LATENTS = Path("data/latents")

AUTOENCODER = Path("artifacts/autoencoder")
TRAIN = Path("artifacts/train")
BUNDLE = Path("artifacts/bundle")
PREDICTIONS = Path("artifacts/predictions")

REPORTS = Path("reports")
# Journals and checkpoints of unfinished stages live outside DVC's outs, because DVC deletes those before a stage runs.
WORK = Path(".work")
