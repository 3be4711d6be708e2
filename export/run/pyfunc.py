"""A bundle as MLflow serves it. Models-from-code: MLflow runs this file and takes the model it sets.

It imports nothing of ours by name. The code travels in the bundle (code.pyz), its packages below one that is named for their
digest, so that neither a user's `model.py`, nor an installed version of this repository, nor another model in the same process
is taken for it. MLflow's own way, code_paths, puts the packages in front of all others under their bare names.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import zipfile
import zipimport
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow
import mlflow.pyfunc
import pandas as pd

BUNDLE, CODE = "bundle", "code.pyz"


class TransfusionModel(mlflow.pyfunc.PythonModel):
    """A bundle behind MLflow's interface: one record a request, one row an answer."""

    def load_context(self, context: Any) -> None:
        """Open the bundle that MLflow has put on this machine, with the bundle's own code."""
        bundle = Path(context.artifacts[BUNDLE]).absolute()
        self.served = own_module(bundle / CODE, "export.run.served").Served(bundle)

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride]  (MLflow declares no types)
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One answer a record, as export/run/served.py reads them; the columns are those of export/run/serving_schema.py.

        model_input: a list of prompts or of records, one prompt, or a table of records; MLflow warns of a hint that says so.
        Raises MlflowException for a parameter that cannot be used.
        """
        try:
            answers = self.served.answers(records_of(model_input), params or {})
        except (ValueError, TypeError) as error:
            raise mlflow.MlflowException.invalid_parameter_value(str(error)) from None
        return pd.DataFrame(answers, columns=self.served.columns)


def own_module(archive: Path, module: str) -> ModuleType:
    """A module of the code in `archive`, by a name that code of another version does not have; sys.path stays as it is."""
    with zipfile.ZipFile(archive) as files:
        package = next(name.partition("/")[0] for name in files.namelist() if "/" in name)
    if package not in sys.modules:
        spec = zipimport.zipimporter(str(archive)).find_spec(package)
        assert spec is not None and spec.loader is not None, archive
        sys.modules[package] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[package])
    return importlib.import_module(f"{package}.{module}")


def records_of(given: Any) -> list[Any]:
    """Texts and mappings, whatever they came in. A field that is null, as JSON or pandas say it, is left out."""
    if isinstance(given, str):
        return [given]
    table = pd.DataFrame(given) if isinstance(given, dict) else given
    if isinstance(table, pd.DataFrame):
        # Of a list of texts pandas makes a column without a name.
        records = list(table[0]) if list(table.columns) == [0] else table.to_dict(orient="records")
    else:
        records = list(table)
    return [_without_missing(record) if isinstance(record, dict) else record for record in records]


def _without_missing(record: dict[Any, Any]) -> dict[Any, Any]:
    return {name: value for name, value in record.items() if not (pd.api.types.is_scalar(value) and pd.isna(value))}


mlflow.models.set_model(TransfusionModel())
