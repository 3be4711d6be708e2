"""Configuration of the export and of inference: every field with its unit; params.yaml holds all values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from core.text import shown

# Options of generation that are whole numbers: the least and the greatest. More steps than this show nothing in a picture,
# and no model holds as many tokens; they would only keep an engine busy for days.
WHOLE_NUMBERS = {"batch_size": (1, 4096), "num_solver_steps": (1, 10_000), "max_new_tokens": (1, 1_000_000)}
MAX_GUIDANCE_SCALE = 1000.0


def check_options(values: Mapping[str, Any]) -> None:
    """Raise ValueError with one sentence where an option of generation cannot be used; others are not looked at."""
    for name, (least, most) in WHOLE_NUMBERS.items():
        value = values.get(name, least)
        # To Python True is a whole number.
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"{name}: {shown(value)} must be a whole number from {least} to {most}")
    scale, seed = values.get("guidance_scale", 1.0), values.get("seed", 0)
    # Not a number fails every comparison, and so this one.
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale <= MAX_GUIDANCE_SCALE:
        raise ValueError(f"guidance_scale: {shown(scale)} must be a number greater than 0, at most {MAX_GUIDANCE_SCALE:g}")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ValueError(f"seed: {shown(seed)} must be a whole number")


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What the export makes of a trained model."""

    opset: Literal[23, 24]
    """Of the ONNX graphs."""
    max_transformer_error: float
    """Largest absolute difference to eager torch that is allowed, in fp32."""
    max_autoencoder_error: float
    """The same for the autoencoder's graphs."""
    tensorrt: Literal["auto", "off", "required"]
    """"auto" builds engines where TensorRT is found, "off" never, "required" fails without it."""

    def __post_init__(self) -> None:
        for name in ("max_transformer_error", "max_autoencoder_error"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: {getattr(self, name)!r} must be greater than 0, and finite")


@dataclass(frozen=True, kw_only=True)
class RegisterConfig:
    """When a version becomes champion."""

    name: str
    """Of the registered model."""
    bounds: dict[str, float]
    """Metric (a key of components/evaluation/metrics.py) -> its least value, or its greatest where lower is better. Each must
    be measured and hold."""
    default_bounds: dict[str, float]
    """The same for any corpus: what the corpora do not let be measured is left out, aloud, and the others must hold."""
    compare: tuple[str, ...]
    """Metrics, the first of which that a new version and the champion were both measured in, item by item, is compared."""
    tolerance: float
    """By how much a new version may be worse in it, as a share of the champion's figure."""

    def __post_init__(self) -> None:
        if not self.compare:
            raise ValueError("compare: must name at least one metric")
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"tolerance: {self.tolerance!r} must be a share of the champion's figure, at least 0 and below 1")


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Options of generation. Callers set them too, so they are checked here and not only where params.yaml is read.

    Raises ValueError with a sentence.
    """

    batch_size: int
    """Requests in flight together in one engine."""
    guidance_scale: float
    """1 is none."""
    num_solver_steps: int
    """Of an image."""
    max_new_tokens: int
    """Of one answer."""
    seed: int
    """With a request's id, it fixes that request's noise."""

    def __post_init__(self) -> None:
        check_options(vars(self))


@dataclass(frozen=True, kw_only=True)
class InferConfig(PredictOptions):
    """Batch inference over a bundle."""

    requests: str
    """JSONL file of requests."""
    engine: Literal["auto", "torch", "onnxruntime", "tensorrt"]
    """"auto" takes the best found (tensorrt, onnxruntime); or one of them by name."""
