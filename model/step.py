"""What generation asks of whatever runs the model: one `step` on a cache of fixed slots.

A slot holds one sequence from column 0 on. A step writes the keys and values of S new positions a row at columns
cache_position .. cache_position + S - 1, overwriting what stood there, and a key column is visible where column <= kv_end.
That one call serves prefill, text decoding, denoising in place and the commit of a finished latent, in torch and in exported
graphs, and rows of one call may be in different phases. Rows at a noise level above 0 may be left unwritten: a latent under way
is seen by itself alone, and what follows it sees the clean one, which is written over it.

Legend: B rows, S positions a step, W numbers in the widest modality's patch, V vocabulary, H heads, T cache length, K head dim.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from model.config import ModelConfig


class StepInputs(NamedTuple):
    """What one step reads, beside the cache."""

    input_ids: Tensor
    """int64 [B, S], read where token_type_ids is 0."""
    patches: Tensor
    """float32 [B, S, W], read elsewhere; zeros behind a narrower patch."""
    token_type_ids: Tensor
    """int64 [B, S], 0 for text, k for a patch of modality k - 1."""
    time: Tensor
    """float32 [B], noise level of the row's patches; 0 for clean ones."""
    position_ids: Tensor
    """int64 [B, S], for the rotary embedding."""
    kv_end: Tensor
    """int64 [B, S], last visible cache column."""
    cache_position: Tensor
    """int64 [B], first column written."""
    logits_index: Tensor
    """int64 [B], the one of the S positions whose logits are wanted."""
    kv_length: int
    """Active window of the cache; at least kv_end + 1 and cache_position + S, the larger the slower."""
    grids: tuple[tuple[int, ...], ...]
    """For each row the patches along each axis of the latent it holds, () where it holds none. The U-Net alone reads it: a row
    holds at most one latent of such a modality in a step, and that one from position 0 on."""

    def to(self, device: torch.device | str) -> StepInputs:
        """The same on `device`."""
        return self.with_tensors(part.to(device, non_blocking=True) for part in self.tensors)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The fields that are tensors: the first eight."""
        return self[:8]

    def with_tensors(self, tensors: Iterable[Tensor]) -> StepInputs:
        """The same with other tensors."""
        return StepInputs._make([*tensors, self.kv_length, self.grids])


class StepOutput(NamedTuple):
    """Both are on a device of the engine's choosing."""

    logits: Tensor
    """float32 [B, V], of the positions at logits_index."""
    prediction: Tensor
    """float32 [B, S, W], what the network predicts of the patches."""


Cache = list[tuple[Tensor, Tensor]]  # per layer: keys and values, each [slots, H, T, K]


class Engine(Protocol):
    """Whatever can run a step: torch in model/generation/eager.py, ONNX Runtime and TensorRT in export/."""

    @property
    def config(self) -> ModelConfig:
        """Of the model that it runs."""
        ...

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
