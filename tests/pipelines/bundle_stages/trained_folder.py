"""A working directory as training and evaluation leave it: a tiny model with random weights, its figures, requests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.evaluation.intervals import Items, items_of
from components.evaluation.kept_items import keep_items
from components.runtime.recording import open_run
from core.files import write_json
from core.manifest import write_manifest
from core.tokenizer import train_tokenizer
from model.config import image_modality, model_config
from model.latents.autoencoder import Autoencoder
from model.transfusion import Transfusion
from pipelines import paths
from pipelines.ancestry import given

SIDE_PX = 16
PICTURE = "data/requests/images/b.png"
# Of so many items, of which as many as the figure says are right.
NUM_ITEMS = 200
METRICS = {"text_to_image/objects_right": 0.95, "image_to_text/objects_right": 0.93}
SAMPLING = {"guidance_scale": 3.5, "num_steps": 3, "solver": "euler"}
REQUESTS = [
    {"id": "a", "task": "text_to_image", "prompt": "a red three top left"},
    {"id": "b", "task": "image_to_text", "image": "images/b.png"},
    {"id": "c", "task": "text", "prompt": "a blue"},
    "{cut off",
    {"id": "d", "task": "text_to_image", "prompt": "<|boi|><|eos|> a blue seven"},
    {"id": "e", "task": "image_to_text", "image": "images/missing.png"},
    {"id": "f", "task": "text", "prompt": "word " * 200},
    {"id": "a", "task": "text", "prompt": "the same id"},
    {"id": "g", "task": "text_to_image", "prompt": "a green one bottom right"},
]


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """The stages work in the current directory, and with the tracking store that lies there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield


def write_trained_folder() -> None:
    """In the current directory, what training and evaluation leave behind."""
    tokenizer = train_tokenizer(["a red three top left", "a blue seven bottom right", "a green one"] * 4, 300)
    for name in ("data/tokenizer", "data/requests/images", "artifacts/train"):
        Path(name).mkdir(parents=True)
    tokenizer.save(Path("data/tokenizer"))
    ids = tokenizer.special_ids
    markers = {"begin_token_id": ids["boi"], "end_token_id": ids["eoi"]}
    images = image_modality(channels=4, patch_side=2, patch_layers="linear", unet_channels=(), **markers)
    sizes = {"vocab_size": 300, "modalities": (images,), "prediction_type": "flow", "max_position_embeddings": 128}
    Transfusion(model_config("tiny", **sizes, special_ids=ids)).save_pretrained(Path("artifacts/train"))
    write_json(Path("artifacts/train/run.json"), {"run_id": open_run("train").run_id})
    write_manifest(Path("artifacts/train"), kind="train", step=1)
    channels = {"block_channels": (8, 8), "layers_per_block": 1, "latent_channels": 4, "norm_groups": 4}
    Autoencoder.create(**channels, sample_side_px=SIDE_PX).save_pretrained(Path("artifacts/autoencoder"))
    preparation = {"side_px": SIDE_PX, "background": "white", "animated": "first_frame"}
    write_manifest(Path("artifacts/autoencoder"), kind="autoencoder", preparation=preparation)
    evaluated(METRICS)
    Image.fromarray(np.zeros((SIDE_PX, SIDE_PX, 3), np.uint8)).save(PICTURE)
    lines = [line if isinstance(line, str) else json.dumps(line) for line in REQUESTS]
    Path("data/requests/requests.jsonl").write_text("\n".join(lines))


def evaluated(metrics: dict[str, float], *, held_out: str = "d" * 64) -> None:
    """What the evaluation of artifacts/train leaves. held_out: the digest of the documents that it was of."""
    write_json(Path("reports/evaluate/metrics.json"), metrics)
    within = {key: {"low": value - 0.01, "high": value + 0.01, "num_items": NUM_ITEMS} for key, value in metrics.items()}
    write_json(Path("reports/evaluate/intervals.json"), within)
    _, ancestors = given("tokenizer", "autoencoder", "train")
    facts = {"ancestors": ancestors, "sampling": SAMPLING}
    manifest = write_manifest(Path("reports/evaluate"), kind="evaluation", names=["metrics.json", "intervals.json"], **facts)
    items = {key: right_items(value) for key, value in metrics.items()}
    documents = {name: held_out for each in items.values() for name in each.names}
    about = {"held_out": documents, "settings": {"seed": 17}, "process": {"prediction_type": "flow"}}
    keep_items(paths.EVALUATION_ITEMS, items, about, evaluation=manifest)


def right_items(share: float) -> Items:
    """Items of which the first are right."""
    names = [f"item {number}" for number in range(NUM_ITEMS)]
    return items_of(names, [float(number < round(share * NUM_ITEMS)) for number in range(NUM_ITEMS)], [1.0] * NUM_ITEMS)
