"""Are schedules and solvers the ones diffusers has, and the draws pure functions of their keys?"""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
import torch

from model import noise
from model.config import Objective
from model.solvers import advance, solver_times


def test_cosine_schedule_equals_diffusers() -> None:
    from diffusers import DDPMScheduler

    theirs = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2").alphas_cumprod
    ours = noise.signal_level(torch.arange(1, 1001) / 1000)
    torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=1e-7)
    assert noise.signal_level(torch.zeros(1)).item() == 1


def test_noised_patches_equal_diffusers(rng: random.Random) -> None:
    from diffusers import DDPMScheduler

    theirs: Any = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
    clean, eps = torch.randn(8, 12), torch.randn(8, 12)
    step = torch.tensor([rng.randrange(1, 1001) for _ in range(8)])
    ours = noise.add_noise("epsilon", clean, eps, (step / 1000).unsqueeze(-1))
    torch.testing.assert_close(ours, theirs.add_noise(clean, eps, step - 1), rtol=1e-3, atol=1e-4)


def test_ddim_step_equals_diffusers(rng: random.Random) -> None:
    from diffusers import DDIMScheduler

    theirs: Any = DDIMScheduler(
        num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2", clip_sample=False, set_alpha_to_one=True
    )
    theirs.set_timesteps(10)
    x, eps = torch.randn(4, 12), torch.randn(4, 12)
    for _ in range(5):
        step = rng.randrange(200, 900)
        ours = advance("epsilon", x, eps, torch.tensor((step + 1) / 1000), torch.tensor((step + 1 - 100) / 1000))
        torch.testing.assert_close(ours, theirs.step(eps, step, x).prev_sample, rtol=2e-3, atol=2e-4)


def test_euler_on_the_flow_equals_diffusers() -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    theirs: Any = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.0)
    times = solver_times("flow", 7)
    theirs.set_timesteps(sigmas=times[:-1])
    x = torch.randn(4, 12)
    other, one = x, x
    for index, step in enumerate(theirs.timesteps):
        velocity = torch.sin(one * 3 + index)
        one = advance("flow", one, velocity, torch.tensor(times[index]), torch.tensor(times[index + 1]))
        other = theirs.step(velocity, step, other).prev_sample
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("objective", ["flow", "epsilon"])
def test_a_perfect_prediction_leads_back_to_the_clean_image(objective: Objective) -> None:
    clean, eps = torch.randn(4, 12), torch.randn(4, 12)
    times = torch.tensor(solver_times(objective, 20))
    x = noise.add_noise(objective, clean, eps, times[0])
    for now, then in itertools.pairwise(times):
        x = advance(objective, x, noise.target(objective, clean, eps), now, then)
    torch.testing.assert_close(x, clean, rtol=1e-3, atol=1e-3)


def test_draws_depend_on_seed_step_and_sample_alone(rng: random.Random) -> None:
    samples, counts = torch.tensor([7, 3, 11]), torch.tensor([4, 2, 6])
    seed, step = rng.randrange(100), rng.randrange(100)
    together = noise.draw(seed, step, samples, counts, 5)
    alone = noise.draw(seed, step, samples[1:2], counts[1:2], 5)
    assert torch.equal(together.noise[4:6], alone.noise)
    assert together.time[1] == alone.time[0]
    for other in ((seed + 1, step), (seed, step + 1)):
        assert not torch.equal(noise.draw(*other, samples, counts, 5).noise, together.noise)


def test_draws_look_uniform_and_normal() -> None:
    drawn = noise.draw(0, 0, torch.arange(4000), torch.full((4000,), 2), 8)
    assert abs(drawn.time.mean() - 0.5) < 0.02 and abs(drawn.time.std() - 12**-0.5) < 0.02
    assert abs(drawn.noise.mean()) < 0.02 and abs(drawn.noise.std() - 1) < 0.02
    neighbours = torch.corrcoef(torch.stack([drawn.time[:-1], drawn.time[1:]]))[0, 1]
    assert abs(neighbours) < 0.06


def test_a_shift_moves_times_towards_noise_and_one_moves_nothing() -> None:
    time = torch.linspace(0, 1, 11)
    assert torch.equal(noise.shifted(time, 1.0), time)
    moved = noise.shifted(time, 3.0)
    assert moved[0] == 0 and moved[-1] == 1 and (moved[1:-1] > time[1:-1]).all() and (moved.diff() > 0).all()
    # SD3's eq. 23 at t = 1/2: shift / (1 + shift).
    assert moved[5] == pytest.approx(0.75)
