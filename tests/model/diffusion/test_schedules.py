"""The noise levels are the paper's, diffusers' and the definitions'."""

from __future__ import annotations

import math
import random

import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor

from model.config import DiffusionProcess
from model.diffusion.schedules import alpha_sigma, compute_snr

GRID = torch.arange(1, 1001, dtype=torch.float64) / 1000


def alpha_bar_by_definition(*, zero_terminal_snr: bool) -> Tensor:
    """The product of 1 - beta, step by step: 2102.09672, eq. 17 and the cap; then 2305.08891, Algorithm 1."""
    f = [math.cos((i / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(1001)]
    alphas = [1 - min(1 - f[i + 1] / f[i], 0.999) for i in range(1000)]
    root = torch.tensor(alphas, dtype=torch.float64).cumprod(0).sqrt()
    if zero_terminal_snr:
        first, last = root[0].clone(), root[-1].clone()
        root = (root - last) * first / (first - last)
    return root.square()


@pytest.mark.parametrize(
    "process", [DiffusionProcess("epsilon"), DiffusionProcess("v"), DiffusionProcess("v", zero_terminal_snr=True)]
)
def test_cosine_schedule_is_the_definition_and_diffusers(process: DiffusionProcess) -> None:
    alpha_t, sigma_t = alpha_sigma(process, GRID)
    expected = alpha_bar_by_definition(zero_terminal_snr=process.zero_terminal_snr)
    torch.testing.assert_close(alpha_t.square(), expected, rtol=1e-10, atol=1e-18)
    torch.testing.assert_close(sigma_t.square(), 1 - expected, rtol=1e-10, atol=1e-14)
    theirs = DDPMScheduler(
        num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2", rescale_betas_zero_snr=process.zero_terminal_snr
    ).alphas_cumprod
    # Theirs is a product of a thousand float32.
    torch.testing.assert_close(alpha_t.square().float(), theirs, rtol=5e-5, atol=1e-6)


def test_zero_terminal_snr_leaves_nothing_at_the_end_and_the_first_step_alone() -> None:
    plain = alpha_sigma(DiffusionProcess("v"), GRID).alpha_t
    rescaled = alpha_sigma(DiffusionProcess("v", zero_terminal_snr=True), GRID).alpha_t
    assert rescaled[-1] == 0 and plain[-1] > 4e-5
    assert rescaled[0] == pytest.approx(plain[0].item(), abs=1e-15)
    assert (rescaled.diff() < 0).all() and (plain.diff() < 0).all()


@pytest.mark.parametrize(
    "process",
    [
        DiffusionProcess("epsilon"),
        DiffusionProcess("v", zero_terminal_snr=True),
        DiffusionProcess("flow"),
        DiffusionProcess("x"),
    ],
)
def test_time_zero_is_clean(process: DiffusionProcess) -> None:
    alpha_t, sigma_t = alpha_sigma(process, torch.zeros(3))
    assert alpha_t.tolist() == [1, 1, 1] and sigma_t.tolist() == [0, 0, 0]
    assert compute_snr(process, torch.zeros(1)).item() == math.inf


def test_times_between_steps_take_the_nearest_and_precision_is_the_times(rng: random.Random) -> None:
    index = torch.tensor([rng.randrange(1, 1000) for _ in range(50)])
    between = (index + torch.tensor([rng.uniform(-0.49, 0.49) for _ in range(50)])) / 1000
    for process in (DiffusionProcess("epsilon"), DiffusionProcess("v", zero_terminal_snr=True)):
        near, at = alpha_sigma(process, between), alpha_sigma(process, index.double() / 1000)
        assert near.alpha_t.dtype == near.sigma_t.dtype == torch.float32
        # Correctly rounded, also where 1 - alpha_bar in float32 would have no more than three digits.
        assert torch.equal(near.alpha_t, at.alpha_t.float()) and torch.equal(near.sigma_t, at.sigma_t.float())


def test_flow_is_the_straight_line(rng: random.Random) -> None:
    time = torch.tensor([rng.random() for _ in range(20)])
    for process in (DiffusionProcess("flow"), DiffusionProcess("x")):
        at = alpha_sigma(process, time)
        assert torch.equal(at.alpha_t, 1 - time) and torch.equal(at.sigma_t, time)
        torch.testing.assert_close(compute_snr(process, time), ((1 - time) / time).square())
