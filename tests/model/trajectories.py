"""What the tests of solvers share: every process with its solvers, and a network to solve with."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable

import torch
from torch import Tensor

from model.config import DiffusionProcess
from model.diffusion.solvers import Denoiser, Solver

EPSILON, V, V_ZERO = DiffusionProcess("epsilon"), DiffusionProcess("v"), DiffusionProcess("v", zero_terminal_snr=True)
FLOW, X = DiffusionProcess("flow"), DiffusionProcess("x")
DDPM_PATH: list[tuple[DiffusionProcess, Solver]] = list(
    itertools.product((EPSILON, V, V_ZERO), ("ddpm", "ddim", "dpmpp", "unipc"))
)
FLOW_PATH: list[tuple[DiffusionProcess, Solver]] = list(itertools.product((FLOW, X), ("euler", "heun")))

Network = Callable[[Tensor, float], Tensor]


def fake_network(x: Tensor, time: float) -> Tensor:
    """Nonlinear in both, so that no two solvers agree by accident."""
    return torch.sin(2 * x + 3 * time) + 0.3 * x * math.cos(5 * time)


def start(rng: random.Random, num: int = 60, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(2, num // 2, generator=torch.Generator().manual_seed(rng.randrange(2**32)), dtype=dtype)


def trajectory(
    process: DiffusionProcess, solver: Solver, num_steps: int, x: Tensor, network: Network = fake_network, seed: int = 0
) -> list[Tensor]:
    """All that the network saw, and the clean latent."""
    denoiser = Denoiser(process, solver, num_steps, torch.Generator().manual_seed(seed))
    seen = [x]
    while not denoiser.done:
        seen.append(denoiser.advance(seen[-1], network(seen[-1], denoiser.time)))
    assert denoiser.num_evaluations == len(seen) - 1 and denoiser.time == 0
    return seen
