"""The weights that a training begins with: where they lie, and what its manifest says of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from components.training.transformer.config import TrainConfig
from components.training.transformer.pretrained_files import PRETRAINED
from export.run.registered import MODELS, bundle_folder


def start_of(config: TrainConfig) -> Path | None:
    """The folder of the weights to begin with, of a registered version where they are fetched to; None: those of the seed."""
    if config.pretrained.startswith(MODELS):
        return bundle_folder(config.pretrained).absolute()
    return Path(config.pretrained).absolute() if config.pretrained else None


def origin_of(config: TrainConfig, digests: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """For the manifest: which weights a training began with. Without the path, which is of this machine."""
    if not config.pretrained:
        return {}
    name = config.pretrained if config.pretrained.startswith(MODELS) else Path(config.pretrained).resolve().name
    return {PRETRAINED: {"name": name, "sha256": digests[PRETRAINED]}}
