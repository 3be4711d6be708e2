"""Under which key a figure's standard error stands, in metrics.json as in the tags of a registered version."""

from __future__ import annotations


def standard_error_key(metric: str) -> str:
    """Beside the figure's own: "a/right_se" for "a/right"."""
    return f"{metric}_se"
