"""The tensors of one call of the step graph: cache, inputs and outputs by name, whatever runs it.

A cache's input and its output are the same memory. A runtime that is given one address for both writes the new columns in
place (ONNX Runtime's TensorScatter, TensorRT's KVCacheUpdate); with two it would copy every cache at every step.

Legend: B rows, S positions a step, W numbers in the widest modality's patch, V vocabulary, H heads, L cache length, K head
dimension.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from export.graph_names import STEP_INPUTS, cache_names
from model.config import ModelConfig
from model.step import StepInputs, StepOutput


class StepCall(NamedTuple):
    """Contiguous tensors on the engine's device, by the graph's names. Keep it until the call is over: it owns them."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]

    @property
    def result(self) -> StepOutput:
        """The outputs as the generation loop takes them."""
        return StepOutput(self.outputs["logits"], self.outputs["prediction"])


class StepTensors:
    """Makes caches for a step graph, and the tensors of its calls. A cache: [slots, H, L, K], key and value by layer."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self._key_position = torch.arange(config.max_position_embeddings, device=device)
        self._taken = cache_names("cache", config.num_hidden_layers)
        self._given = cache_names("present", config.num_hidden_layers)

    def new_cache(self, num_slots: int) -> list[Tensor]:
        """Keys and values of every layer, each [num_slots, H, L, K], all zero."""
        shape = (num_slots, self.config.num_attention_heads, self.config.max_position_embeddings, self.config.head_dim)
        return [torch.zeros(shape, device=self.device) for _ in self._taken]

    def call(self, inputs: StepInputs, cache: list[Tensor], rows: slice) -> StepCall:
        """One step on the slots `rows` of a cache. Raises ValueError where they are not as many as the inputs' rows."""
        num_rows, num_positions = inputs.input_ids.shape
        slots = [part[rows] for part in cache]
        if any(len(part) != num_rows for part in slots):
            # A runtime takes an address on trust, and would read and write beyond the slots.
            raise ValueError(f"rows: {rows} are not {num_rows} slots of a cache of {len(cache[0])}")
        values = [value.to(self.device).contiguous() for value in inputs.tensors]
        taken = dict(zip(STEP_INPUTS, [*values, self._key_position[: inputs.kv_length]], strict=True))
        given = {
            "logits": torch.empty(num_rows, self.config.vocab_size, device=self.device),
            "prediction": torch.empty(num_rows, num_positions, self.config.patch_dim, device=self.device),
        }
        return StepCall(
            taken | dict(zip(self._taken, slots, strict=True)),
            given | dict(zip(self._given, slots, strict=True)),
        )
