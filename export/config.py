"""Configuration of the export and of inference: every field with its unit; params.yaml holds all values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from export.text import shown

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
    """opset: of the ONNX graphs.

    max_transformer_error, max_autoencoder_error: largest absolute difference to eager torch allowed, in fp32.
    tensorrt: "auto" builds engines where TensorRT is found, "off" never, "required" fails without it.
    """

    opset: Literal[23, 24]
    max_transformer_error: float
    max_autoencoder_error: float
    tensorrt: Literal["auto", "off", "required"]

    def __post_init__(self) -> None:
        for name in ("max_transformer_error", "max_autoencoder_error"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: {getattr(self, name)!r} must be greater than 0, and finite")


@dataclass(frozen=True, kw_only=True)
class RegisterConfig:
    """When does a version become champion?

    name: of the registered model. floors: metric -> least value; all must hold.
    compare: the metric on which a new version must not be worse than the present champion.
    """

    name: str
    floors: dict[str, float]
    compare: str


@dataclass(frozen=True, kw_only=True)
class InferConfig:
    """Batch inference over a bundle.

    requests: JSONL file of requests. batch_size: requests in flight in one engine.
    engine: "auto" takes the best found (tensorrt, onnxruntime); or one of them by name.
    guidance_scale, num_solver_steps, max_new_tokens, seed: of the generation.
    """

    requests: str
    batch_size: int
    engine: Literal["auto", "torch", "onnxruntime", "tensorrt"]
    guidance_scale: float
    num_solver_steps: int
    max_new_tokens: int
    seed: int

    def __post_init__(self) -> None:
        check_options(vars(self))
