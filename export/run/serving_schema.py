"""The schema of a served bundle: columns, parameters, packages and example of export/run/pyfunc.py.

A record is a request: id and prompt are text, task is one of export/run/requests.py's TASKS, image is an image file's bytes (in
JSON: in base64). Every record is checked for itself, so that one which holds a null, a number or a broken picture has a
sentence in its answer's `error` and the others are answered. That is why the columns are of any type: MLflow would check
them as a whole, and refuse all records for one. A parameter that cannot be used refuses the call, for it is everybody's; so
does half a surrogate pair in the JSON, which pandas does not take into a table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from export.bundle import GenerationConfig

MODEL_CODE = Path(__file__).with_name("pyfunc.py")

# Name, type (an MLflow DataType's name, or "any"), whether it must be there.
# Records none of which has an id or a task are refused: MLflow drops columns that it does not know, and with them the rows.
INPUTS = (("id", "any", True), ("task", "any", True), ("prompt", "any", False), ("image", "any", False))
# Of an answer: the record's id ("" where it has none), then text or image_png or error; the other two are empty.
OUTPUTS = (("id", "string", True), ("text", "string", True), ("image_png", "binary", True), ("error", "string", True))
# What a caller may set, with its type: fields of PredictOptions.
PARAMETERS = {"guidance_scale": "double", "num_solver_steps": "integer", "max_new_tokens": "integer", "seed": "integer"}
EXAMPLE = ({"id": "1", "task": "text_to_image", "prompt": "a red three top left"},)
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
