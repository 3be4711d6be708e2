"""What can be set about the export and about inference? Every field with its unit; params.yaml holds all values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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
        for field in ("batch_size", "guidance_scale", "num_solver_steps", "max_new_tokens"):
            if not getattr(self, field) > 0:
                raise ValueError(f"{field}: {getattr(self, field)!r} must be greater than 0")
