"""An autoencoder that the user gives, taken as it is where it can be used."""

from __future__ import annotations

import json
from pathlib import Path

from components.runtime.diagnosis import first_line
from core.errors import BadInput
from model.latents.autoencoder import Autoencoder

# What the folder may hold: the kinds of diffusers that encode to normal latents or to codes.
KINDS = ("AutoencoderKL", "VQModel")


def load_pretrained(folder: Path, side_px: int) -> Autoencoder:
    """A given autoencoder; BadInput where the folder holds none, or one that images of side_px do not fit."""
    try:
        kind = json.loads((folder / "config.json").read_text())["_class_name"]
        autoencoder = Autoencoder.from_pretrained(folder) if kind in KINDS else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"autoencoder.pretrained: {folder} is no diffusers {' or '.join(KINDS)} ({first_line(error)})") from None
    if autoencoder is None:
        raise BadInput(f"autoencoder.pretrained: {folder} holds a {kind}, no {' or '.join(KINDS)}; give one of those")
    if side_px % autoencoder.pixels_per_latent:
        raise BadInput(
            f"autoencoder.pretrained: {folder} makes one latent pixel of {autoencoder.pixels_per_latent} px, and images have "
            f"{side_px}; set ingest.image_side_px to a multiple"
        )
    return autoencoder
