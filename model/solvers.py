"""How does noise become an image? The times a solver visits, and one step from a time to the next.

Euler for the rectified flow; DDIM (Song et al., arXiv 2010.02502, eq. 12 with eta = 0) for the paper's epsilon.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.config import Objective
from model.noise import signal_level

# DDIM divides by the signal that is left, and at t = 1 the capped cosine schedule leaves none (5e-5); at 0.98 it is 3%.
FIRST_TIME: dict[Objective, float] = {"flow": 1.0, "epsilon": 0.98}


def solver_times(objective: Objective, num_steps: int) -> list[float]:
    """num_steps + 1 falling noise levels, evenly spaced, from (nearly) pure noise to 0, clean."""
    if num_steps < 1:
        raise ValueError(f"num_steps: {num_steps} must be at least 1")
    return [FIRST_TIME[objective] * (1 - step / num_steps) for step in range(num_steps + 1)]


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
