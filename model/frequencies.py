"""The table of falling frequencies that angles of positions and of noise levels are made of."""

from __future__ import annotations

import functools

import torch
from torch import Tensor


def frequencies(base: float, number: int, device: torch.device) -> Tensor:
    """float32 [number]: base ** (-i / number) for i from 0 on."""
    # Kept on a GPU, which a copy from ordinary memory would have to wait for, and which takes none while a graph is captured.
    # Exporters and compilers want the numbers themselves: a computed table they fold with an exp of their own, whose last bits
    # the large positions magnify.
    return (
        _kept(base, number, device)
        if device.type == "cuda" and not torch.compiler.is_compiling()
        else _made(base, number, device)
    )


@functools.cache
def _kept(base: float, number: int, device: torch.device) -> Tensor:
    # Whoever asks first may be generating, and what is made in inference mode no training can use.
    with torch.inference_mode(mode=False):
        return _made(base, number, device)


def _made(base: float, number: int, device: torch.device) -> Tensor:
    return torch.tensor([base ** (-i / number) for i in range(number)], dtype=torch.float32, device=device)
