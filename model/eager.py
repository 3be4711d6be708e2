"""How does eager torch run a generation step? The reference engine, on any device and in any precision the model has.

Legend: H heads, T cache length, K head width.
"""

from __future__ import annotations

import torch

from model.engine import Cache, StepInputs, StepOutput
from model.transfusion import Transfusion


class TorchEngine:
    """Steps of a model where it is; its cache is a list of tensors [slots, H, T, K], keys and values of each layer."""

    def __init__(self, model: Transfusion, max_length: int | None = None) -> None:
        self.model = model.eval()
        self.config = model.config
        self.max_length = max_length or model.config.max_length

    def new_cache(self, num_slots: int) -> Cache:
        config, weight = self.config, self.model.embedding.weight
        shape = (num_slots, config.num_heads, self.max_length, config.head_width)
        empty = torch.zeros(shape, dtype=weight.dtype, device=weight.device)
        return [(empty.clone(), empty.clone()) for _ in range(config.num_layers)]

    @torch.inference_mode()
    def step(self, inputs: StepInputs, cache: Cache, rows: slice) -> StepOutput:
        device = self.model.embedding.weight.device
        moved = StepInputs(*(part.to(device) for part in inputs[:-1]), num_keys=inputs.num_keys)
        output = self.model.step(moved, [(keys[rows], values[rows]) for keys, values in cache])
        return StepOutput(output.logits.cpu(), output.prediction.cpu())
