"""The operator that writes keys and values into the cache, and what it becomes in ONNX.

In place in eager torch is a copy here, because a graph has no side effects: runtimes get the in-place update back
by binding one buffer as both cache input and output (ORT's TensorScatter, TensorRT's KVCacheUpdate).

Shapes: B rows, H heads, S step length, T cache length, D head width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


# An operator of its own, because torch has none that the exporter could recognise: a plain index_put arrives as ScatterND,
# which tells a runtime nothing of a cache.
@torch.library.custom_op("transfusion::write_cache", mutates_args=())
def write_cache(cache: Tensor, new: Tensor, cache_position: Tensor) -> Tensor:
    """The cache [B, H, T, D] with new [B, H, S, D] at columns cache_position .. + S - 1; cache_position int64 [B]."""
    return scatter_cache(cache, new, cache_position)


@write_cache.register_fake
def _write_cache_shape(cache: Tensor, new: Tensor, cache_position: Tensor) -> Tensor:
    return torch.empty_like(cache)


def scatter_cache(cache: Tensor, new: Tensor, cache_position: Tensor) -> Tensor:
    """The same in plain torch operators, which become ScatterND at opset 23."""
    # Indices of rows and columns must be neighbours, or index_put moves the indexed axes to the front; hence the transposes.
    row = torch.arange(cache.shape[0], device=cache.device)[:, None]
    column = cache_position[:, None] + torch.arange(new.shape[2], device=cache.device)
    return cache.transpose(1, 2).index_put((row, column), new.transpose(1, 2)).transpose(1, 2)


def onnx_translations(opset: int) -> dict[Callable[..., Any], Callable[..., Any]]:
    """The custom_translation_table of torch.onnx.export: TensorScatter, which opset 24 brought."""
    if opset < 24:
        return {}
    from onnxscript.onnx_opset import opset24

    def translate(cache: Any, new: Any, cache_position: Any) -> Any:
        # "linear": a write ends within the slot. "circular" would go on at column 0, over what is still visible.
        return opset24.TensorScatter(cache, new, cache_position, axis=-2, mode="linear")

    return {torch.ops.transfusion.write_cache.default: translate}
