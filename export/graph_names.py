"""Names of the graphs' inputs and outputs, which the build side writes and every engine binds."""

from __future__ import annotations

STEP, ENCODER, DECODER = "step", "vae_encoder", "vae_decoder"

# Inputs of the step graph before its caches, in order; all but the last are StepInputs.tensors of model/generation/engine.py.
STEP_INPUTS = ("ids", "patches", "kind", "time", "position", "q_last", "write_at", "read_at", "key_position")
# Its outputs before the caches that it gives.
STEP_OUTPUTS = ("logits", "prediction")
# Which axis of each is which dimension; the caches' only free axis is the batch.
STEP_DIMS: dict[str, dict[int, str]] = {
    "ids": {0: "batch", 1: "step"},
    "patches": {0: "batch", 1: "step"},
    "kind": {0: "batch", 1: "step"},
    "time": {0: "batch"},
    "position": {0: "batch", 1: "step"},
    "q_last": {0: "batch", 1: "step"},
    "write_at": {0: "batch"},
    "read_at": {0: "batch"},
    "key_position": {0: "keys"},
}


def cache_names(prefix: str, num_layers: int) -> list[str]:
    """key_0, value_0, key_1, ...: the caches in the step graph's order; prefix "cache" (taken) or "present" (given)."""
    return [f"{prefix}_{half}_{layer}" for layer in range(num_layers) for half in ("key", "value")]
