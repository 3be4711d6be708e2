"""Train the autoencoder on the corpus's images, or take a given one, and measure it on images held out.

A killed training goes on from its last checkpoint.

data/documents -> artifacts/autoencoder, reports/autoencoder/metrics.json, reports/autoencoder/reconstructions.png
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from components.runtime.cluster import device
from components.training.autoencoder.images import read_images
from components.training.autoencoder.pretrained import load_pretrained
from components.training.autoencoder.quality import code_use, commonest_cause, psnr_db, reconstruct
from components.training.autoencoder.train import train_autoencoder, work_folder
from components.training.pictures import save_pairs
from core.errors import GateRefused
from core.files import atomic_replace, fresh_folder, write_json
from core.manifest import write_manifest
from pipelines import paths, stage
from pipelines.ancestry import given, preparation_of
from pipelines.sections import Params
from pipelines.unfinished import forget

REPORT = paths.REPORTS / "autoencoder"
NUM_PICTURES = 16


def main(params: Params) -> None:
    """Train or take the autoencoder, measure it, and publish it where its PSNR is high enough."""
    config = params.autoencoder
    manifests, ancestors = given("documents")
    preparation = asdict(preparation_of("documents", manifests))
    work = work_folder(config, paths.DOCUMENTS, paths.WORK / "autoencoder")
    held_out = read_images(paths.DOCUMENTS, "test")
    if config.pretrained:
        autoencoder = load_pretrained(Path(config.pretrained), held_out.shape[1])
    else:
        autoencoder = train_autoencoder(config, paths.DOCUMENTS, work)
    autoencoder.to(device())
    reconstructed = reconstruct(autoencoder, held_out)
    facts = {
        "psnr_db": round(psnr_db(reconstructed, held_out), 3),
        "num_held_out_images": len(held_out),
        "pixels_per_latent": autoencoder.pixels_per_latent,
        "latent_channels": autoencoder.latent_channels,
        "latent_mean": autoencoder.latent_mean.flatten().tolist(),
        "latent_std": autoencoder.latent_std.flatten().tolist(),
        **code_use(autoencoder, held_out),
    }
    # Without the path, which is of this machine: what measures by its features says where it comes from.
    origin: dict[str, Any] = {"pretrained": Path(config.pretrained).resolve().name} if config.pretrained else {}
    REPORT.mkdir(parents=True, exist_ok=True)
    write_json(REPORT / "metrics.json", facts)
    labels = ("held-out originals", "the same, encoded and decoded")
    save_pairs(REPORT / "reconstructions.png", held_out[:NUM_PICTURES], reconstructed[:NUM_PICTURES], labels)
    if facts["psnr_db"] < config.min_psnr_db:
        reached = f"the held-out PSNR, {facts['psnr_db']:.1f} dB, is below autoencoder.min_psnr_db {config.min_psnr_db}"
        raise GateRefused(f"{reached}: {commonest_cause(config)}; see {REPORT / 'reconstructions.png'}")
    whole = fresh_folder(work / "published")
    autoencoder.cpu().save_pretrained(whole)
    write_manifest(whole, kind="autoencoder", ancestors=ancestors, preparation=preparation, **facts, **origin)
    atomic_replace(whole, paths.AUTOENCODER)
    forget(work)
    print(
        f"{facts['psnr_db']:.1f} dB on {len(held_out)} held-out images; see {REPORT / 'reconstructions.png'}",
        flush=True,
    )


if __name__ == "__main__":
    torch.set_float32_matmul_precision("high")
    stage.run("autoencoder", __doc__, main)
