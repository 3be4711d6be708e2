"""The schema of a served bundle: columns of answers, parameters and packages of export/run/pyfunc.py.

Records (export/run/served.py) have no schema. Every one is checked for itself, so that one which holds a number or a broken
picture has a sentence in its answer's `error` and the others are answered; MLflow would check columns as a whole, refuse all
records for one, and take no plain list of prompts. A parameter that cannot be used refuses the call, for it is everybody's; so
does half a surrogate pair in the JSON, which pandas does not take into a table.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.bundle import GenerationConfig

if TYPE_CHECKING:
    # MLflow runs its file; the import is for DVC, which so registers again where the file changes.
    from export.run import pyfunc  # noqa: F401

MODEL_CODE = Path(__file__).with_name("pyfunc.py")

# Of an answer: name, type (an MLflow DataType's name), whether it is always there. The record's id ("" where that is no text),
# then text or image_png or error; the other two are empty.
OUTPUTS = (("id", "string", True), ("text", "string", True), ("image_png", "binary", True), ("error", "string", True))
# What a caller may set, with its type: fields of PredictOptions.
PARAMETERS = {"guidance_scale": "double", "num_solver_steps": "integer", "max_new_tokens": "integer", "seed": "integer"}
PACKAGES = (
    "torch",
    "onnx",
    "onnxruntime-gpu",
    "onnxruntime",
    "tokenizers",
    "safetensors",
    "pillow",
    "numpy",
    "pandas",
    "mlflow",
)


def parameters(generation: GenerationConfig) -> dict[str, tuple[str, Any]]:
    """Name -> type, and what holds where a caller sets nothing: what the bundle's figures were measured with."""
    return {name: (kind, getattr(generation, name, 0)) for name, kind in PARAMETERS.items()}
