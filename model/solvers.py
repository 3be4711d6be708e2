"""How does noise become an image? The times a solver visits, and one step from a time to the next.

Euler for the rectified flow; DDIM (Song et al., arXiv 2010.02502, eq. 12 with eta = 0) for the paper's epsilon.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.config import Objective
from model.noise import signal_level


def solver_times(num_steps: int) -> list[float]:
    """num_steps + 1 falling noise levels, from 1 (pure noise) to 0 (clean)."""
    if num_steps < 1:
        raise ValueError(f"num_steps: {num_steps} must be at least 1")
    return [1 - step / num_steps for step in range(num_steps + 1)]


def advance(objective: Objective, noised: Tensor, prediction: Tensor, time: Tensor, next_time: Tensor) -> Tensor:
    """One solver step. noised, prediction: [..., W]; time and next_time broadcast against them, next_time below time."""
    if objective == "flow":
        return noised + (next_time - time) * prediction
    signal, next_signal = signal_level(time), signal_level(next_time)
    clean = (noised - (1 - signal).sqrt() * prediction) / signal.sqrt()
    return next_signal.sqrt() * clean + (1 - next_signal).sqrt() * prediction


def guided(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (Ho and Salimans, arXiv 2207.12598); a scale of 1 is the conditional prediction."""
    return torch.lerp(unconditional, conditional, scale)
