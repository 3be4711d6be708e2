"""What does a served bundle take and give? The columns, parameters, packages and example of export/pyfunc.py."""

from __future__ import annotations

from pathlib import Path

MODEL_CODE = Path(__file__).with_name("pyfunc.py")

# Name, type (an MLflow DataType's name), whether it must be there.
INPUTS = (("id", "string", True), ("task", "string", True), ("prompt", "string", False), ("image", "binary", False))
OUTPUTS = (("id", "string", True), ("text", "string", True), ("image_png", "binary", True), ("error", "string", True))
# What a caller may set and what holds where it does not: name -> type, default. The fields of PredictOptions.
PARAMETERS = {
    "guidance_scale": ("double", 2.5),
    "num_solver_steps": ("integer", 20),
    "max_new_tokens": ("integer", 64),
    "seed": ("integer", 0),
}
EXAMPLE = ({"id": "1", "task": "text_to_image", "prompt": "a red three top left"},)
PACKAGES = (
    "torch",
    "onnxruntime-gpu",
    "onnxruntime",
    "tokenizers",
    "safetensors",
    "pillow",
    "numpy",
    "pandas",
    "mlflow",
)
