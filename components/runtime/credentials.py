"""Secrets taken out of addresses and sentences, and put back from this process's environment where they are needed."""

from __future__ import annotations

import os
import re

# `user:password@` or `token@` between a scheme and a host. A password may hold a slash (databases allow it) or an @.
_USER = re.compile(r"(?<=://)(?:[^\s/?#'\"]*@|[^:/?#\s'\"@]*:(?!\d+/)[^\s?#'\"]*@)")
_QUERY = re.compile(
    r"([?&;][^=&;#\s'\"]*(?:pass|pwd|secret|token|key|sig|credential|auth|jwt)[^=&;#\s'\"]*=)[^&;#\s'\"]+", re.IGNORECASE
)
_VARIABLES = (
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "RAY_AUTH_TOKEN",
)
_MIN_SECRET_CHARACTERS = 4


def without_secrets(text: str) -> str:
    """An address, or any text with addresses in it, without users, passwords and the values of secret query fields.

    The values of the environment's variables for secrets go as well.
    """
    for name in _VARIABLES:
        value = os.environ.get(name, "")
        if len(value) >= _MIN_SECRET_CHARACTERS:
            text = text.replace(value, "***")
    return _QUERY.sub(r"\1***", _USER.sub("", text))


def with_credentials(uri: str) -> str:
    """The environment's MLFLOW_TRACKING_URI where it differs from `uri` in nothing but secrets, else `uri`."""
    mine = os.environ.get("MLFLOW_TRACKING_URI", "")
    return mine if mine and without_secrets(mine).rstrip("/") == without_secrets(uri).rstrip("/") else uri
