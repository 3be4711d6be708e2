"""What does generation ask of whatever runs the model? One `step` on a cache of fixed slots; and eager torch's answer to it.

A slot holds one sequence from column 0 on. A step writes the keys and values of S new positions a row at columns
write_at .. write_at + S - 1, overwriting what stood there, and a key column is visible where column <= q_last. That one
call serves prefill, text decoding, denoising in place and the commit of a finished image, in torch and in exported graphs.

Legend: B rows, S positions a step, W numbers in a patch, V vocabulary, H heads, T cache length, K head width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor

from model.config import ModelConfig

if TYPE_CHECKING:
    from model.transfusion import Transfusion


class StepInputs(NamedTuple):
    """ids: int64 [B, S]. patches: float32 [B, S, W], read where is_image.

    is_image: bool [B, S]. time: float32 [B], noise level of the row's patches; 0 for clean ones.
    position: int64 [B, S], rotary. q_last: int64 [B, S], last visible cache column. write_at: int64 [B], first column written.
    read_at: int64 [B], the one of the S positions whose logits are wanted.
    num_keys: active window of the cache; at least q_last + 1 and write_at + S, the larger the slower.
    """

    ids: Tensor
    patches: Tensor
    is_image: Tensor
    time: Tensor
    position: Tensor
    q_last: Tensor
    write_at: Tensor
    read_at: Tensor
    num_keys: int


class StepOutput(NamedTuple):
    """logits: float32 [B, V] of the read_at positions. prediction: float32 [B, S, W], the objective's target."""

    logits: Tensor
    prediction: Tensor


Cache = list[tuple[Tensor, Tensor]]  # per layer: keys and values, each [slots, H, T, K]


class Engine(Protocol):
    """Whatever can run a step: eager torch here, ONNX Runtime and TensorRT in export/."""

    @property
    def config(self) -> ModelConfig: ...

    @property
    def max_length(self) -> int:
        """Columns of a slot."""
        ...

    def new_cache(self, num_slots: int) -> Any:
        """A cache with every slot empty; what it is made of is the engine's own affair."""
        ...

    def step(self, inputs: StepInputs, cache: Any, rows: slice) -> StepOutput:
        """Run one step on the slots `rows` (contiguous, one for each row of inputs), writing the cache in place."""
        ...


class TorchEngine:
    """Eager torch, on whatever device and in whatever precision the model is."""

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
