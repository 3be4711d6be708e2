"""Frequencies of cosines and sines, base ** (-i / N): of rotary positions and of a noise level's features."""

from __future__ import annotations

import torch
from torch import Tensor

_kept: dict[tuple[float, int, torch.device], Tensor] = {}


def frequencies(base: float, number: int, device: torch.device) -> Tensor:
    """float32 [number], in falling order from 1; made once a device, for to make one there is to wait for the device."""
    # A graph that is written down holds the table itself. It must be a literal one: exporters fold a computed one with an exp
    # of their own, whose last bits large positions and times magnify.
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return _literal(base, number, device)
    key = (base, number, device)
    if key not in _kept:
        # Of inference mode's tensors training could not keep what it needs.
        with torch.inference_mode(False):
            table = _literal(base, number, device)
        if type(table) is not Tensor:
            # Of a mode that only traces: it would be no number later.
            return table
        _kept[key] = table
    return _kept[key]


def _literal(base: float, number: int, device: torch.device) -> Tensor:
    return torch.tensor([base ** (-i / number) for i in range(number)], dtype=torch.float32, device=device)
