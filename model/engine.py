"""What does generation ask of whatever runs the model? One `step` on a cache of fixed slots.

A slot holds one sequence from column 0 on. A step writes the keys and values of S new positions a row at columns
write_at .. write_at + S - 1, overwriting what stood there, and a key column is visible where column <= q_last. That one
call serves prefill, text decoding, denoising in place and the commit of a finished image, in torch and in exported graphs.

Legend: B rows, S positions a step, W numbers in a patch, V vocabulary, H heads, T cache length, K head width.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from torch import Tensor

from model.config import ModelConfig


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
    """Whatever can run a step: eager torch in model/eager.py, ONNX Runtime and TensorRT in export/."""

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
