"""The tree of every stage's configuration, which params.yaml fills (params.py reads it)."""

from __future__ import annotations

from dataclasses import dataclass

from components.data.config import EncodeConfig, IngestConfig, ValidateConfig
from components.evaluation.config import EvaluateConfig
from components.training.autoencoder.config import AutoencoderConfig
from components.training.transformer.config import TrainConfig
from export.config import ExportConfig, InferConfig, RegisterConfig


@dataclass(frozen=True, kw_only=True)
class Params:
    """One section a stage, under the stage's name."""

    ingest: IngestConfig
    validate: ValidateConfig
    autoencoder: AutoencoderConfig
    encode: EncodeConfig
    train: TrainConfig
    evaluate: EvaluateConfig
    export: ExportConfig
    register: RegisterConfig
    infer: InferConfig
