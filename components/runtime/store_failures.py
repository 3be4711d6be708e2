"""What MLflow raises about its store, as one sentence: what happened to which store, and what to do."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from components.runtime.credentials import without_secrets
from core.errors import BadInput

NO_MLFLOW = "answers, but not as an MLflow server does; check host, port and path of MLFLOW_TRACKING_URI"
LONGEST = 300
# Marks in the text of an error -> what they mean. MLflow has one class and few codes for all of these.
_MEANINGS = (
    (
        ("No module named",),
        "is of a kind that needs a package which is not installed; install its driver, or name another store",
    ),
    (
        ("error code 401", "UNAUTHENTICATED", "not authenticated"),
        "does not let us in (401); set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
    ),
    (("error code 403", "PERMISSION_DENIED", "Permission denied: "), "forbids this (403); use an account that may write there"),
    (
        (
            "not in a valid JSON format",
            "<html",
            "<!DOCTYPE",
            "<!doctype",
            "Unsupported method",
            "error code 404",
            "error code 405",
        ),
        NO_MLFLOW,
    ),
    (
        ("ProxyError", "Unable to connect to proxy"),
        "cannot be reached through the proxy that HTTP_PROXY or HTTPS_PROXY names; correct it, or name the host in NO_PROXY",
    ),
    (
        ("Connection refused", "Failed to establish", "Errno 111"),
        "does not answer (nothing listens there); start it, or correct or unset MLFLOW_TRACKING_URI",
    ),
    (
        ("Failed to resolve", "Name or service not known", "getaddrinfo", "NameResolutionError", "Temporary failure in name"),
        "does not answer (no such host); correct or unset MLFLOW_TRACKING_URI",
    ),
    (
        ("timed out", "timeout exception", "Read timed out"),
        "does not answer in time; see whether it hangs, or unset MLFLOW_TRACKING_URI",
    ),
    (
        ("SSLError", "CERTIFICATE", "wrong version number"),
        "speaks no TLS we trust; check http or https, and its certificate",
    ),
    (
        ("Connection aborted", "Connection reset", "RemoteDisconnected", "BadStatusLine", "Connection broken"),
        "broke the connection off; see whether an MLflow server runs there",
    ),
    (("database is locked",), "is locked by another program; end the one that writes to it, and run again"),
    (
        ("readonly database", "read-only", "unable to open database file"),
        "cannot be written; make the file and its folder writable for this user",
    ),
    (
        ("file is not a database", "malformed", "disk image"),
        "is no SQLite database, or a damaged one; move it away, or name another store",
    ),
    (("disk is full", "No space left"), "has no space left, for its database or its artefacts; make some"),
    (
        ("out-of-date database schema", "Can't locate revision"),
        "was made by another version of MLflow; run `mlflow db upgrade` on a copy of it, or install the MLflow that made it",
    ),
)


@contextmanager
def failures_explained(uri: str) -> Iterator[None]:
    """Turn what MLflow raises about its store into a BadInput of one sentence."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except BadInput:
        raise
    except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
        raise BadInput(explained(error, uri)) from None
    except Exception as error:
        if not _in_a_library(error):
            raise
        # Of an answer that is no MLflow's its client makes what it can, until a field is missing or of another type.
        raise BadInput(explained(error, uri, otherwise=NO_MLFLOW)) from None


def explained(error: BaseException, uri: str, *, otherwise: str = "") -> str:
    """What happened to the store at `uri`, and what to do: one sentence without secrets.

    otherwise: what is said of an error without any of the marks.
    """
    text = without_secrets(" ".join(str(error).split()))
    for marks, meaning in _MEANINGS:
        if any(mark in text for mark in marks):
            return f"the tracking store {uri} {meaning}"
    if otherwise:
        return f"the tracking store {uri} {otherwise}"
    status = getattr(getattr(error, "response", None), "status_code", 0) or _status_in(text)
    how = f"fails with HTTP status {status}" if status else "fails"
    return f"the tracking store {uri} {how}: {_shortened(text) or type(error).__name__}; put it right, or name another store"


def _status_in(text: str) -> int:
    """The HTTP status in MLflow's words of it, 0 where there is none."""
    found = re.search(r"\berror code (\d{3})\b|\btoo many (\d{3}) error", text)
    return int(found[1] or found[2]) if found else 0


def _shortened(text: str) -> str:
    """Cut between two words."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST].rpartition(' ')[0] or text[:LONGEST]} ..."


def _in_a_library(error: BaseException) -> bool:
    """Whether it was raised in MLflow's code, or in code that MLflow called."""
    frames = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(name.startswith("mlflow.") for name in frames)


def is_missing(error: Exception) -> bool:
    """Whether an MLflow server, or database, answered that a run, model or version does not exist.

    Any web server may say 404; that is no such answer.
    """
    foreign = "<" in str(error) or "error code 404" in str(error)
    return getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST" and not foreign
