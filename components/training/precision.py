"""The number format of training: weights stay in float32, matrix products may be bfloat16."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "float32", "bfloat16"]


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """The context of a forward pass, in `product_type` where that is not float32."""
    import torch

    dtype = product_type(precision, device)
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype != torch.float32)


def product_type(precision: Precision, device: torch.device) -> torch.dtype:
    """The number format of matrix products. "auto" takes bfloat16 where the device multiplies faster in it."""
    # Not above: the configuration names Precision, and reading it must not take torch's seconds.
    import torch

    # Where a processor has instructions for it, it is 2.5 times as fast; an imitation is far slower than float32.
    on_cpu = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    is_fast = on_cpu if device.type == "cpu" else device.type == "cuda"
    wanted = precision == "bfloat16" or (precision == "auto" and is_fast)
    return torch.bfloat16 if wanted else torch.float32
