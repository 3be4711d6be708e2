"""Names by which an evaluation's figures are found: in metrics.json, on a registered version, and among MLflow's runs."""

from __future__ import annotations

# The tag of an evaluation's run that holds the digest of its figures, by which the registration finds it.
FIGURES = "mlflow.figures"
# Before a held-out document's name, where an item of a figure is the picture that was generated for it.
GENERATED_FOR = "generated for "


def standard_error_key(metric: str) -> str:
    """Beside the figure's own: "a/right_se" for "a/right"."""
    return f"{metric}_se"
