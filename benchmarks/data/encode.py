"""Images encoded a second, beside a plain loop over diffusers' autoencoder on the same images, in turn.

Ours is the encode stage's own work on documents in Parquet: decoding, tokens, latents, checked shards, on one worker a core;
the cluster's start is outside the clock, that of the workers inside. The loop has its images in memory as PNG files, opens each
with Pillow, encodes it alone with all cores, and keeps mean and deviation in memory; all its loading is outside the clock. It
runs with threads that wait as they do by default, and with threads that wait without spinning; the faster counts.

`python -m benchmarks.data.encode AUTOENCODER IMAGES THREADS SEED` is the loop.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data.corpus import Corpus, make_documents, write_corpus
from components.data.encode.encoding import Sources, encode_parts
from components.data.encode.latents import EncodeSettings
from components.data.shards import open_shard
from components.runtime.cluster import start_ray
from core.files import fresh_folder
from pipelines import paths

ROOT = Path(__file__).resolve().parents[2]
SIDE_PX = 32
WAITING: dict[str, dict[str, str]] = {"plain_loop": {}, "plain_loop_passive": {"OMP_WAIT_POLICY": "passive"}}


def measure(folder: Path, *, quick: bool, rounds: int, num_cores: int, seed: int) -> dict[str, Any]:
    """encode_ratio, and the images a second of both sides in each round."""
    corpus = Corpus(400 if quick else 80_000, SIDE_PX, 50 if quick else 1024, seed)
    num_theirs = 100 if quick else 3000
    write_corpus(folder, corpus)
    loop = [str(folder / paths.AUTOENCODER), str(num_theirs), str(num_cores), str(seed)]
    rates: dict[str, list[float]] = {name: [] for name in ("ours", *WAITING)}
    os.environ["TRANSFUSION_NUM_ACTORS"] = str(num_cores)
    with start_ray():
        for _ in range(rounds):
            rates["ours"].append(ours(folder, corpus))
            for name, environment in WAITING.items():
                rates[name].append(_loop(loop, environment))
    medians = {name: round(statistics.median(found), 1) for name, found in rates.items()}
    ratio = round(medians["ours"] / max(medians[name] for name in WAITING), 2)
    about = {"cores": num_cores, "side_px": corpus.side_px, "documents": corpus.num_documents}
    return {"encode_ratio": ratio, "encode": {"images_per_s": medians, "rounds": rates, **about}}


def ours(folder: Path, corpus: Corpus) -> float:
    """Images a second of the stage's work on everything below `folder`."""
    sources = Sources(folder / paths.DOCUMENTS, folder / paths.TOKENIZER, folder / paths.AUTOENCODER, frozenset())
    settings = EncodeSettings(batch_size=128, row_length=256, patch_side=4, image_side_px=corpus.side_px)
    work = fresh_folder(folder / "work")
    started_s = time.perf_counter()
    encode_parts(sources, settings, work)
    return _num_images(work) / (time.perf_counter() - started_s)


def plain_loop(autoencoder: Path, images: list[bytes], num_threads: int) -> float:
    """Images a second, one image at a time."""
    import torch
    from diffusers import AutoencoderKL
    from PIL import Image

    torch.set_num_threads(num_threads)
    model = AutoencoderKL.from_pretrained(autoencoder, low_cpu_mem_usage=False).eval()
    started_s, kept = time.perf_counter(), []
    with torch.inference_mode():
        for data in images:
            pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
            tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
            posterior = model.encode(tensor).latent_dist  # type: ignore[union-attr]
            kept.append((posterior.mean.half().numpy(), posterior.std.half().numpy()))
    return len(kept) / (time.perf_counter() - started_s)


def _loop(arguments: list[str], environment: dict[str, str]) -> float:
    command = [sys.executable, "-m", "benchmarks.data.encode", *arguments]
    ended = subprocess.run(command, cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(ended.stdout.splitlines()[-1])


def _num_images(work: Path) -> int:
    return sum(len(open_shard(path).image_at) for path in work.glob("*/shard-*.safetensors"))


def _main(autoencoder: str, num_documents: str, num_threads: str, seed: str) -> None:
    documents = make_documents(int(num_documents), "train", SIDE_PX, int(seed))
    images = [data for document in documents for data in document.images]
    print(json.dumps(plain_loop(Path(autoencoder), images, int(num_threads))))


if __name__ == "__main__":
    _main(*sys.argv[1:])
