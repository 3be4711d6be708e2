"""What MLFLOW_TRACKING_URI and MLflow's other variables may say, looked at before a store is asked anything."""

from __future__ import annotations

import os
from importlib.metadata import entry_points
from urllib.parse import urlsplit

from components.runtime.credentials import without_secrets
from core.errors import BadInput

SERVERS, DATABASES = ("http", "https"), ("sqlite", "postgresql", "mysql", "mssql")
REMEDY = (
    "name a database (sqlite:///mlflow.db) or a server (http://host:5000), or unset it for the project's mlflow.db "
    "(MLflow keeps no runs in plain folders any more)"
)

KINDS = {int: "a whole number", float: "a number", bool: "true or false"}


def check_address(uri: str) -> None:
    """BadInput where `uri` cannot be the address of a store that keeps anything."""
    if uri == "databricks" or uri.startswith("databricks:"):
        return
    if fault := _fault(uri):
        raise BadInput(f"MLFLOW_TRACKING_URI={without_secrets(uri)} {fault}; {REMEDY}")


def check_variables() -> None:
    """BadInput where one of MLflow's variables is no value of its kind: MLflow would say so in the middle of a call."""
    set_here = [name for name in os.environ if name.startswith("MLFLOW_")]
    if not set_here:
        return
    from mlflow import environment_variables

    for name in set_here:
        variable = getattr(environment_variables, name, None)
        try:
            if variable is not None:
                variable.get()
        except ValueError:
            kind = KINDS.get(getattr(variable, "type", None), "another value")
            raise BadInput(f"{name}={without_secrets(os.environ[name])!r} must be {kind}; correct or unset it") from None


def _fault(uri: str) -> str:
    """What is wrong with an address, or ""."""
    scheme, separator, rest = uri.partition("://")
    kind = scheme.partition("+")[0].lower()
    if not separator or kind == "file":
        return "is no address of a store"
    if kind == "sqlite":
        return _fault_of_file(rest)
    if kind in SERVERS:
        try:
            parts = urlsplit(uri)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            return f"cannot be read as an address ({without_secrets(str(error))})"
        return "" if host else "names no host"
    plugins = {point.name for point in entry_points(group="mlflow.tracking_store")}
    return "" if kind in DATABASES or scheme in plugins else f"is of no kind that MLflow keeps runs in ({scheme}://)"


def _fault_of_file(rest: str) -> str:
    """Of what stands behind sqlite://."""
    path, _, query = rest.partition("?")
    if path in ("", "/") or path.startswith(("/:memory:", ":memory:", "/file::memory:")) or "mode=memory" in query:
        return "is a database in memory, which is lost with this process"
    return (
        "" if path.startswith("/") else "has two slashes, and takes three before a relative path, four before an absolute one"
    )
