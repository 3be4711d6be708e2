"""A bundle as MLflow serves it. Models-from-code: MLflow runs this file and takes the model it sets.

Needs this repository's packages to be importable where it is loaded. The repository's code does not travel with the
model: MLflow's code_paths mixes up two models in one process that bring modules of the same names.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import mlflow
import mlflow.pyfunc
import pandas as pd

from export.run.answers import Answer
from export.run.picture_files import MAX_IMAGE_BYTES
from export.run.predictor import Predictor
from export.run.requests import Prompt
from export.run.serving_schema import OUTPUTS


class TransfusionModel(mlflow.pyfunc.PythonModel):
    """A bundle behind MLflow's interface: one row a request, one row an answer."""

    def load_context(self, context: Any) -> None:
        """Open the bundle that MLflow has put on this machine."""
        self.predictor = Predictor.open(Path(context.artifacts["bundle"]))

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride]  (MLflow declares no return type)
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One answer a record, both as export/run/serving_schema.py lays them out.

        Raises MlflowException for a parameter that cannot be used.
        """
        rows = model_input.to_dict(orient="records")
        try:
            options = self.predictor.options(**(params or {}))
        except (ValueError, TypeError) as error:
            raise mlflow.MlflowException.invalid_parameter_value(str(error)) from None
        answers = self.predictor.predict([_prompt(row) for row in rows], options)
        return pd.DataFrame([_row(answer) for answer in answers], columns=[name for name, _, _ in OUTPUTS])


def _prompt(row: dict[Any, Any]) -> Prompt | Answer:
    """A record as the predictor takes it, which checks its texts; or the answer to one whose picture is none."""
    fields = {name: "" if _is_missing(row.get(name)) else row[name] for name in ("id", "task", "prompt")}
    try:
        return Prompt(fields["id"], fields["task"], fields["prompt"], _picture(row.get("image")))
    except ValueError as error:
        return Answer(fields["id"], error=str(error))


def _picture(value: Any) -> bytes:
    """An image file's bytes, b"" where there is none; raises ValueError with one sentence."""
    if _is_missing(value):
        return b""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if not isinstance(value, str):
        raise ValueError(f"image must be an image file's bytes, in JSON as base64, not {type(value).__name__}")
    # Not even decoded: base64 has four characters for three bytes.
    if len(value) > 2 * MAX_IMAGE_BYTES:
        raise ValueError(f"image has more than {MAX_IMAGE_BYTES // 2**20} MiB")
    try:
        # Encoders break their lines; anything else that is not base64 is a mistake.
        return base64.b64decode("".join(value.split()), validate=True)
    except ValueError:
        raise ValueError("image is not base64") from None


def _is_missing(value: Any) -> bool:
    """None, and the several ways in which pandas says it."""
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def _row(answer: Answer) -> dict[str, Any]:
    id = answer.id if isinstance(answer.id, str) else ""
    return {"id": id, "text": answer.text, "image_png": answer.image_png, "error": answer.error}


mlflow.models.set_model(TransfusionModel())
