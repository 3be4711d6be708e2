"""Solvers visit what diffusers' schedulers visit, from the same noise with the same network.

Its tables are float32. With ours in float64 in their place (test_schedules.py holds them against each other), its arithmetic
can be compared to many digits, but where it casts samples to float32: DPMSolverMultistepScheduler and the flow schedulers.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from model.config import DiffusionProcess
from model.diffusion.schedules import alpha_sigma
from model.diffusion.solvers import Solver, solver_times
from tests.model.trajectories import EPSILON, FLOW, V_ZERO, Network, V, X, fake_network, start, trajectory


def assert_same(ours: list[Tensor], theirs: list[Tensor], tolerance: float) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def options_of(process: DiffusionProcess) -> dict[str, Any]:
    return {
        "num_train_timesteps": 1000,
        "beta_schedule": "squaredcos_cap_v2",
        "prediction_type": "epsilon" if process.prediction_type == "epsilon" else "v_prediction",
        "rescale_betas_zero_snr": process.zero_terminal_snr,
    }


def alpha_bar(process: DiffusionProcess) -> Tensor:
    return alpha_sigma(process, torch.arange(1, 1001, dtype=torch.float64) / 1000).alpha_t.square()


def steps_of(process: DiffusionProcess, num_steps: int) -> list[int]:
    """diffusers' numbers of our times: it counts noisy steps from 0."""
    return [round(time * 1000) - 1 for time in solver_times(process, num_steps)[:-1]]


def told_to_diffusers(process: DiffusionProcess) -> Network:
    """What the fake network says, as the scheduler wants it: behind the skip where it wants noise."""
    if process.prediction_type != "epsilon":
        return fake_network

    def predicted_noise(x: Tensor, time: float) -> Tensor:
        alpha_t, sigma_t = alpha_sigma(process, torch.tensor(time, dtype=torch.float64))
        return sigma_t * x + alpha_t * fake_network(x, time)

    return predicted_noise


def theirs_along(scheduler: Any, times: list[float], x: Tensor, network: Network = fake_network, **extra: Any) -> list[Tensor]:
    """times: at which the network is evaluated, each with one of the scheduler's timesteps."""
    seen = [x]
    for time, step in zip(times, scheduler.timesteps, strict=True):
        seen.append(scheduler.step(network(seen[-1], time), step, seen[-1], **extra).prev_sample)
    return seen


@pytest.mark.parametrize("process", [EPSILON, V, V_ZERO])
def test_ddpm_equals_diffusers(process: DiffusionProcess, rng: random.Random) -> None:
    num_steps, seed, x = rng.randrange(5, 60), rng.randrange(2**32), start(rng)
    scheduler: Any = DDPMScheduler(**options_of(process), clip_sample=False)
    scheduler.set_timesteps(timesteps=steps_of(process, num_steps))
    scheduler.alphas_cumprod = alpha_bar(process)
    generator = torch.Generator().manual_seed(seed)
    theirs = theirs_along(scheduler, solver_times(process, num_steps)[:-1], x, told_to_diffusers(process), generator=generator)
    assert_same(trajectory(process, "ddpm", num_steps, x, seed=seed), theirs, 1e-8)


# DDIMScheduler steps by 1000 // num_inference_steps, whatever its timesteps: from 980 on, that is 35, 28 or 20.
@pytest.mark.parametrize(
    ("process", "num_steps", "their_steps"),
    [(EPSILON, 28, 28), (EPSILON, 35, 35), (EPSILON, 49, 50), (V, 25, 25), (V_ZERO, 10, 10), (V_ZERO, 40, 40)],
)
def test_ddim_equals_diffusers(process: DiffusionProcess, num_steps: int, their_steps: int, rng: random.Random) -> None:
    x = start(rng)
    scheduler: Any = DDIMScheduler(**options_of(process), clip_sample=False, timestep_spacing="trailing")
    scheduler.set_timesteps(their_steps)
    if process.prediction_type == "v":
        assert scheduler.timesteps.tolist() == steps_of(process, num_steps)
    scheduler.timesteps = torch.tensor(steps_of(process, num_steps))
    scheduler.alphas_cumprod = alpha_bar(process)
    theirs = theirs_along(scheduler, solver_times(process, num_steps)[:-1], x, told_to_diffusers(process))
    assert_same(trajectory(process, "ddim", num_steps, x), theirs, 1e-9)


@pytest.mark.parametrize("process", [EPSILON, V, V_ZERO])
@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("dpmpp", 2), ("unipc", 2)])
def test_multistep_solvers_equal_diffusers(process: DiffusionProcess, solver: Solver, order: int, rng: random.Random) -> None:
    num_steps, x = rng.choice([1, 2, 3, 7, 14, 15, 20, 50]), start(rng)
    steps = steps_of(process, num_steps)
    if solver == "unipc":
        scheduler: Any = UniPCMultistepScheduler(**options_of(process), solver_order=order, solver_type="bh2")
        scheduler.set_timesteps(num_steps)
        scheduler.timesteps = torch.tensor(steps)
    else:
        scheduler = DPMSolverMultistepScheduler(**options_of(process), solver_order=order, algorithm_type="dpmsolver++")
        scheduler.set_timesteps(timesteps=steps)
    # They leave 2^-24 of the signal's square where zero terminal SNR leaves none.
    level = alpha_bar(process)[steps].clamp(min=2.0**-24 if process.zero_terminal_snr else 0)
    scheduler.sigmas = torch.cat([((1 - level) / level).sqrt(), torch.zeros(1, dtype=torch.float64)])
    theirs = theirs_along(scheduler, solver_times(process, num_steps)[:-1], x, told_to_diffusers(process))
    tolerance = 5e-3 if process.zero_terminal_snr else 1e-8 if solver == "unipc" else 3e-4
    assert_same(trajectory(process, solver, num_steps, x), theirs, tolerance)


@pytest.mark.parametrize("process", [FLOW, X])
def test_euler_equals_diffusers(process: DiffusionProcess, rng: random.Random) -> None:
    num_steps, x = rng.randrange(1, 40), start(rng)
    times = solver_times(process, num_steps)
    scheduler: Any = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.0)
    scheduler.set_timesteps(sigmas=times[:-1])
    scheduler.sigmas = torch.tensor(times, dtype=torch.float64)
    theirs = theirs_along(scheduler, times[:-1], x, velocity_of(process))
    assert_same(trajectory(process, "euler", num_steps, x), theirs, 1e-5 if process == FLOW else 1e-4)


@pytest.mark.parametrize("process", [FLOW, X])
def test_heun_equals_diffusers(process: DiffusionProcess, rng: random.Random) -> None:
    num_steps, x = rng.randrange(2, 40), start(rng)
    times = solver_times(process, num_steps)
    scheduler: Any = FlowMatchHeunDiscreteScheduler(num_train_timesteps=1000, shift=1.0)
    scheduler.set_timesteps(num_steps)
    twice = [times[0], *(time for time in times[1:-1] for _ in range(2))]
    scheduler.timesteps = 1000 * torch.tensor(twice, dtype=torch.float64)
    scheduler.sigmas = torch.tensor([*twice, 0], dtype=torch.float64)
    theirs = theirs_along(scheduler, twice, x, velocity_of(process))
    ours = trajectory(process, "heun", num_steps, x)
    assert len(ours) - 1 == 2 * num_steps - 1
    # Their steps are float32, and the velocity that "x" implies divides by a small time at the end.
    assert_same(ours, theirs, 1e-5 if process == FLOW else 1e-4)


def velocity_of(process: DiffusionProcess) -> Network:
    """The fake network's velocity; it says the clean latent to "x"."""
    return fake_network if process == FLOW else lambda x, time: (x - fake_network(x, time)) / time
