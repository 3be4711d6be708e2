"""Every path that the stages read and write, relative to the repository root; dvc.yaml names the same."""

from pathlib import Path

PARAMS = Path("params.yaml")

# What the parameters name outside the graph, as the stage `inputs` found it: a file a stage.
INPUTS = Path("data/inputs")
DOCUMENTS = Path("data/documents")
TOKENIZER = Path("data/tokenizer")
REQUESTS = Path("data/requests")
QUARANTINE = Path("data/quarantine")
LATENTS = Path("data/latents")

AUTOENCODER = Path("artifacts/autoencoder")
TRAIN = Path("artifacts/train")
# What an evaluation's figures were measured on, item by item: too long for the report, and for git.
EVALUATION_ITEMS = Path("artifacts/evaluation")
BUNDLE = Path("artifacts/bundle")
PREDICTIONS = Path("artifacts/predictions")

REPORTS = Path("reports")
EVALUATION = Path("reports/evaluate")
# How each stage ran, for the report: beside what DVC tracks, since times differ between equal runs.
RAN = Path("reports/ran")
PARITY = Path("reports/export/parity.json")
# Journals and checkpoints of unfinished stages live outside DVC's outs, because DVC deletes those before a stage runs.
WORK = Path(".work")
# TensorRT's are a cache of this machine, and no part of a bundle: see export/engine_key.py.
ENGINES = Path(".work/engines")

# Pictures below these are the graph's own, or a tool's, and no corpus that lies beside them.
WRITTEN = (
    *(
        INPUTS,
        DOCUMENTS,
        TOKENIZER,
        REQUESTS,
        QUARANTINE,
        LATENTS,
        AUTOENCODER,
        TRAIN,
        EVALUATION_ITEMS,
        BUNDLE,
        PREDICTIONS,
        REPORTS,
        WORK,
    ),
    *(Path("mlartifacts"), Path("mlruns"), Path("mlpending")),
)
