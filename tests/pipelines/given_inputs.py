"""Files as a user's params.yaml may name them, of every kind, and what the inputs stage makes of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines import inputs, paths
from pipelines.params import load
from pipelines.sections import Params
from tests.components.data.corpora import IMAGE_STRUCT, pairs, picture, tar_bytes, write_jsonl, write_parquet

ROOT = Path(__file__).parents[2]
LONG_AGO_NS = 10**18 + 123_456_789
CORPORA = [
    {"name": "tars", "format": "webdataset", "path": "given/tars/{a,b}*.tar"},
    {"name": "tables", "format": "parquet", "path": "given/tables"},
    {"name": "coco", "format": "coco", "path": "given/coco.json", "images": "given/coco"},
    {"name": "pages", "format": "obelics", "path": "given/pages/*.jsonl", "images": "given/pages/images"},
    {"name": "mmc4", "format": "mmc4", "path": "given/mmc4/a.jsonl", "images": "given/coco"},
    {"name": "lines", "format": "jsonl", "path": "given/lines"},
    {"name": "photos", "format": "image_folder", "path": "given/photos*"},
]


def touch(path: Path) -> None:
    os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS + 1))


def grow(path: Path) -> None:
    """By a byte, under the old time, as a copy that keeps times does."""
    times = path.stat()
    path.write_bytes(path.read_bytes() + b"\n")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def write_given() -> None:
    """A corpus of each kind, an autoencoder's folder, weights for the evaluation, and requests; all of it is old."""
    for name in ("a1", "a2", "b1"):
        write(f"given/tars/{name}.tar", tar_bytes(pairs(range(2))))
    table = Path("given/tables/part")
    table.mkdir(parents=True)
    images = pa.array([{"bytes": picture(0), "path": None}], IMAGE_STRUCT)
    write_parquet(table / "a.parquet", image=images, text=["a caption"])
    write_jsonl(Path("given/coco.json"), [{"images": [{"id": 1, "file_name": "0.png"}], "annotations": []}])
    for name in ("pages/a", "mmc4/a", "lines/a", "lines/b"):
        Path(f"given/{name}").parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(Path(f"given/{name}.jsonl"), [{"text": "a line"}])
    for name in ("tables/part/images/beside", "coco/train/0", "photos-1/deep/a", "photos-2/c", "pictures/a", "pictures/b"):
        write(f"given/{name}.png", picture(0))
    write("given/pages/images/0.webp", picture(1))
    write("given/photos-1/deep/a.txt", b"a caption")
    for folder in ("more", "other"):
        write(f"elsewhere/{folder}/b.png", picture(2))
    Path("given/photos-2/linked").symlink_to(Path("elsewhere/more").absolute())
    write("given/vae/config.json", b"{}")
    write("given/vae/nested/weights.safetensors", b"weights")
    write("given/words.json", b"{}")
    for name in ("manifest.json", "config.json", "model.safetensors", "tokenizer.json", "autoencoder/config.json"):
        write(f"given/start/{name}", b"as in a bundle")
    write("given/inception.pt", b"a network")
    write("given/clip/model.safetensors", b"weights")
    asked = [{"id": name, "task": "image_to_text", "image": f"pictures/{name}.png"} for name in ("a", "none")]
    write_jsonl(Path("given/asked.jsonl"), asked)
    for folder in ("given", "elsewhere"):
        for path in Path(folder).rglob("*"):
            os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))


def write(name: str, content: bytes) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(content)


def given(*more: str) -> Params:
    corpora = json.dumps(CORPORA)
    settings = [f"ingest.corpora={corpora}", "autoencoder.pretrained=given/vae", "infer.requests=given/asked.jsonl"]
    settings += ["ingest.tokenizer=given/words.json", "train.pretrained=given/start"]
    settings += ["evaluate.weights.inception=given/inception.pt", "evaluate.weights.clip=given/clip"]
    return load(ROOT / "params.yaml", [*settings, *more])


def look(params: Params) -> dict[str, dict[str, Any]]:
    """What stands in data/inputs afterwards, by stage."""
    inputs.main(params)
    return {path.stem: json.loads(path.read_text()) for path in paths.INPUTS.iterdir()}


def differing(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> set[tuple[str, str]]:
    everything = {(name, key) for name, entries in before.items() for key in entries}
    assert everything == {(name, key) for name, entries in after.items() for key in entries}
    return {(name, key) for name, key in everything if before[name][key] != after[name][key]}


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    monkeypatch.chdir(tmp_path)
    write_given()
    return given()
