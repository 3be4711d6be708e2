"""The number format of training: weights stay in float32, matrix products may be bfloat16."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "float32", "bfloat16"]


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """The context of a forward pass. "auto" takes bfloat16 where the device multiplies faster in it."""
    import torch

    wanted = precision == "bfloat16" or (precision == "auto" and bfloat16_is_fast(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)


def bfloat16_is_fast(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16 rather than an imitation of it (2.5 times as fast, or far slower)."""
    import torch

    if device.type == "cpu":
        return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return device.type == "cuda"
