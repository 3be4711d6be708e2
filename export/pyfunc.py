"""How does MLflow serve a bundle? Models-from-code: MLflow runs this file and takes the model it sets.

Needs this repository's packages to be importable where it is loaded. The repository's code does not travel with the
model: MLflow's code_paths mixes up two models in one process that bring modules of the same names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import mlflow.pyfunc
import pandas as pd

from export.predictor import PredictOptions, Predictor, Prompt


class TransfusionModel(mlflow.pyfunc.PythonModel):
    """A bundle behind MLflow's interface: one row a request, one row an answer."""

    def load_context(self, context: Any) -> None:
        self.predictor = Predictor.open(Path(context.artifacts["bundle"]))

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride]  (MLflow declares no return type)
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """model_input: columns id, task, prompt, image (an image file's bytes). Returns id, text, image_png, error."""
        rows = model_input.to_dict(orient="records")
        prompts = [Prompt(str(row["id"]), str(row["task"]), _text(row.get("prompt")), _bytes(row.get("image"))) for row in rows]
        answers = self.predictor.predict(prompts, PredictOptions(batch_size=max(1, len(prompts)), **(params or {})))
        return pd.DataFrame([{"id": a.id, "text": a.text, "image_png": a.image_png, "error": a.error} for a in answers])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else b""


mlflow.models.set_model(TransfusionModel())
