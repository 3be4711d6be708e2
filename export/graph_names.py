"""Names of the graphs' inputs and outputs, which the build side writes and every engine binds."""

from __future__ import annotations

STEP, ENCODER, DECODER = "step", "vae_encoder", "vae_decoder"

# Inputs of the step graph before its caches, in order; all but the last are StepInputs.tensors of model/step.py.
STEP_INPUTS = (
    "input_ids",
    "patches",
    "token_type_ids",
    "time",
    "position_ids",
    "kv_end",
    "cache_position",
    "logits_index",
    "key_position",
)
# Its outputs before the caches that it gives.
STEP_OUTPUTS = ("logits", "prediction")
# Which axis of each is which dimension; the caches' only free axis is the batch.
STEP_DIMS: dict[str, dict[int, str]] = {
    "input_ids": {0: "batch", 1: "step"},
    "patches": {0: "batch", 1: "step"},
    "token_type_ids": {0: "batch", 1: "step"},
    "time": {0: "batch"},
    "position_ids": {0: "batch", 1: "step"},
    "kv_end": {0: "batch", 1: "step"},
    "cache_position": {0: "batch"},
    "logits_index": {0: "batch"},
    "key_position": {0: "keys"},
}


def cache_names(prefix: str, num_hidden_layers: int) -> list[str]:
    """key_0, value_0, key_1, ...: the caches in the step graph's order; prefix "cache" (taken) or "present" (given)."""
    return [f"{prefix}_{half}_{layer}" for layer in range(num_hidden_layers) for half in ("key", "value")]
