"""Solvers arrive where the exact solution does, with their order, each latent on its own."""

from __future__ import annotations

import itertools
import math
import random

import pytest
import torch
from torch import Tensor

from model.config import DiffusionProcess
from model.diffusion.noise import predicted_x_0, squared_error
from model.diffusion.schedules import alpha_sigma
from model.diffusion.solvers import Denoiser, Solver, guided, solver_times
from tests.model.trajectories import (
    DDPM_PATH,
    EPSILON,
    FLOW,
    FLOW_PATH,
    V_ZERO,
    Network,
    V,
    X,
    fake_network,
    start,
    trajectory,
)

# ---- exact solutions


def point_network(process: DiffusionProcess, point: Tensor) -> Network:
    """What is best to predict where all data are one point."""

    def network(x: Tensor, time: float) -> Tensor:
        return prediction_of(process, x, point, time)

    return network


MEAN, DEVIATION = 0.7, 0.5


def gaussian_network(process: DiffusionProcess) -> Network:
    """What is best to predict where data are normal of MEAN and DEVIATION: the posterior's mean."""

    def network(x: Tensor, time: float) -> Tensor:
        a = alpha_sigma(process, torch.tensor(time, dtype=torch.float64)).alpha_t
        x_0 = MEAN + a * DEVIATION**2 / gaussian_spread(process, time) ** 2 * (x - a * MEAN)
        return prediction_of(process, x, x_0, time)

    return network


def gaussian_spread(process: DiffusionProcess, time: float) -> Tensor:
    a, b = alpha_sigma(process, torch.tensor(time, dtype=torch.float64))
    return (a**2 * DEVIATION**2 + b**2).sqrt()


def gaussian_solution(process: DiffusionProcess, x: Tensor, begin: float, end: float) -> Tensor:
    """Where the exact ODE takes x: quantiles stay what they are."""
    mean_at = lambda time: alpha_sigma(process, torch.tensor(time, dtype=torch.float64)).alpha_t * MEAN  # noqa: E731
    quantile = (x - mean_at(begin)) / gaussian_spread(process, begin)
    return mean_at(end) + quantile * gaussian_spread(process, end)


def prediction_of(process: DiffusionProcess, x: Tensor, x_0: Tensor, time: float) -> Tensor:
    a, b = alpha_sigma(process, torch.tensor(time, dtype=torch.float64))
    eps = (x - a * x_0) / b
    velocity = a * eps - b * x_0
    return {"epsilon": velocity, "v": velocity, "flow": eps - x_0, "x": x_0}[process.prediction_type]


@pytest.mark.parametrize(("process", "solver"), [*DDPM_PATH, *FLOW_PATH])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 17])
def test_a_point_is_found_exactly(process: DiffusionProcess, solver: Solver, num_steps: int, rng: random.Random) -> None:
    point = start(rng)
    end = trajectory(process, solver, num_steps, start(rng), point_network(process, point))[-1]
    torch.testing.assert_close(end, point, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("process", "solver"), [*DDPM_PATH, *FLOW_PATH])
def test_the_last_step_ends_in_the_last_prediction(process: DiffusionProcess, solver: Solver, rng: random.Random) -> None:
    num_steps = rng.randrange(1, 30)
    *_, last, end = trajectory(process, solver, num_steps, start(rng))
    time = solver_times(process, num_steps)[-2]
    x_0 = predicted_x_0(process, last, fake_network(last, time), torch.tensor(time, dtype=torch.float64))
    torch.testing.assert_close(end, x_0, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("process", "solver"), [pair for pair in DDPM_PATH + FLOW_PATH if pair[1] != "ddpm"])
def test_a_gaussian_is_found_with_more_steps(process: DiffusionProcess, solver: Solver, rng: random.Random) -> None:
    x = start(rng)
    exact = gaussian_solution(process, x, solver_times(process, 1)[0], 0.0)
    error = [
        (trajectory(process, solver, num_steps, x, gaussian_network(process))[-1] - exact).abs().max()
        for num_steps in (10, 30, 90)
    ]
    # UniPC is at what the last step leaves after 30.
    assert error[0] > 2 * error[1] and error[0] > 6 * error[2]
    assert error[2] < {"ddim": 0.06, "euler": 0.06}.get(solver, 3e-3)


# Over half the path, so that the last step, of first order by design, is not in it; its levels are multiples of 1 / T.
@pytest.mark.parametrize(
    ("process", "solver", "order"),
    [
        (EPSILON, "ddim", 1),
        (EPSILON, "dpmpp", 2),
        (EPSILON, "unipc", 3),
        (V_ZERO, "ddim", 1),
        (V_ZERO, "dpmpp", 2),
        (FLOW, "euler", 1),
        (FLOW, "heun", 2),
        (X, "euler", 1),
        (X, "heun", 2),
    ],
)
def test_errors_fall_with_the_solvers_order(process: DiffusionProcess, solver: Solver, order: int, rng: random.Random) -> None:
    x = start(rng)
    few, many = {"epsilon": (28, 140), "v": (40, 200)}.get(process.prediction_type, (20, 100))
    begin = solver_times(process, 1)[0]

    def error_at_half(num_steps: int) -> float:
        denoiser, x_t = Denoiser(process, solver, num_steps, torch.Generator()), x
        previous = math.inf
        # Heun is there when it comes to that level a second time.
        while denoiser.time > begin / 2 + 1e-9 or (solver == "heun" and previous > begin / 2 + 1e-9):
            previous = denoiser.time
            x_t = denoiser.advance(x_t, gaussian_network(process)(x_t, denoiser.time))
        assert denoiser.time == pytest.approx(begin / 2)
        return (x_t - gaussian_solution(process, x, begin, begin / 2)).abs().max().item()

    measured = math.log(error_at_half(few) / error_at_half(many)) / math.log(many / few)
    print(f"order {measured:.2f}")
    assert order - 0.25 < measured < order + 0.6


def test_a_better_solver_is_better_for_the_same_evaluations(rng: random.Random) -> None:
    x = start(rng)

    def error(process: DiffusionProcess, solver: Solver, num_steps: int) -> float:
        exact = gaussian_solution(process, x, solver_times(process, 1)[0], 0.0)
        return (trajectory(process, solver, num_steps, x, gaussian_network(process))[-1] - exact).abs().max().item()

    for process in (FLOW, X):
        # 19 evaluations each.
        assert error(process, "heun", 10) < error(process, "euler", 19) / 2
    for process in (EPSILON, V, V_ZERO):
        assert error(process, "dpmpp", 20) < error(process, "ddim", 20) / 4
        assert error(process, "unipc", 20) < error(process, "ddim", 20) / 4


@pytest.mark.parametrize("process", [EPSILON, V, V_ZERO])
def test_ancestral_samples_have_the_datas_distribution(process: DiffusionProcess, rng: random.Random) -> None:
    num = 20_000
    end = trajectory(process, "ddpm", 250, start(rng, num), gaussian_network(process), seed=rng.randrange(2**32))[-1]
    # Six standard errors, and 1% for the steps.
    assert abs(end.mean() - MEAN) < 6 * DEVIATION / num**0.5 + 0.005
    assert abs(end.std() / DEVIATION - 1) < 6 / (2 * num) ** 0.5 + 0.01


# ---- the state machine


@pytest.mark.parametrize(("process", "solver"), [*DDPM_PATH, *FLOW_PATH])
def test_denoisers_side_by_side_do_not_meet(process: DiffusionProcess, solver: Solver, rng: random.Random) -> None:
    latents = [start(rng, dtype=torch.float32), start(rng, dtype=torch.float32)]
    num_steps = rng.randrange(2, 12), rng.randrange(2, 12)
    alone = [trajectory(process, solver, num_steps[i], latents[i], seed=i)[-1] for i in range(2)]
    denoisers = [Denoiser(process, solver, num_steps[i], torch.Generator().manual_seed(i)) for i in range(2)]
    while not all(denoiser.done for denoiser in denoisers):
        i = rng.choice([i for i in range(2) if not denoisers[i].done])
        latents[i] = denoisers[i].advance(latents[i], fake_network(latents[i], denoisers[i].time))
    for ours, expected in zip(latents, alone, strict=True):
        assert torch.equal(ours, expected) and ours.dtype == torch.float32


@pytest.mark.parametrize(("process", "solver"), [*DDPM_PATH, *FLOW_PATH])
def test_only_the_ancestral_solver_draws(process: DiffusionProcess, solver: Solver, rng: random.Random) -> None:
    x, seeds = start(rng), (rng.randrange(1000), 1000)
    one, other = (trajectory(process, solver, 6, x, seed=seed)[-1] for seed in seeds)
    assert torch.equal(one, other) == (solver != "ddpm")
    assert torch.equal(one, trajectory(process, solver, 6, x, seed=seeds[0])[-1])


def test_auto_is_the_first_order_solver_of_the_path(rng: random.Random) -> None:
    x = start(rng)
    expected: list[tuple[DiffusionProcess, Solver]] = [
        (EPSILON, "ddim"),
        (V, "ddim"),
        (V_ZERO, "ddim"),
        (FLOW, "euler"),
        (X, "euler"),
    ]
    for process, solver in expected:
        assert torch.equal(trajectory(process, "auto", 5, x)[-1], trajectory(process, solver, 5, x)[-1])


def test_solvers_of_the_other_path_are_refused() -> None:
    for process, solver in [*DDPM_PATH, *FLOW_PATH]:
        other = FLOW if process in (EPSILON, V, V_ZERO) else EPSILON
        with pytest.raises(ValueError, match=f"solver: '{solver}'.*'{other.prediction_type}'"):
            Denoiser(other, solver, 5, torch.Generator())
    with pytest.raises(ValueError, match="solver: 'rk4'"):
        Denoiser(FLOW, "rk4", 5, torch.Generator())  # type: ignore[arg-type]


@pytest.mark.parametrize("process", [EPSILON, V, V_ZERO, FLOW, X])
def test_times_fall_evenly_from_the_first_level_to_clean(process: DiffusionProcess, rng: random.Random) -> None:
    first = 0.98 if process == EPSILON else 1.0
    for num_steps in (1, 2, 980, rng.randrange(3, 980)):
        times = solver_times(process, num_steps)
        assert len(times) == num_steps + 1 and times[0] == first and times[-1] == 0
        assert all(later < earlier for earlier, later in itertools.pairwise(times))
        rounding = 0 if process in (FLOW, X) else 1 / 2000
        assert all(abs(time - first * (1 - i / num_steps)) <= rounding + 1e-12 for i, time in enumerate(times))
    with pytest.raises(ValueError, match="num_steps: 0"):
        solver_times(process, 0)
    if process not in (FLOW, X):
        with pytest.raises(ValueError, match="num_steps: 1001"):
            solver_times(process, 1001)


def test_the_first_level_is_one_that_the_loss_of_a_predicted_noise_teaches() -> None:
    times = torch.tensor([solver_times(EPSILON, 1)[0], 1.0])
    zero, said = torch.zeros(2), torch.ones(2)
    counted = squared_error(EPSILON, said, x_t=zero, x_0=zero, noise=zero, time=times)
    assert counted[0] > 5e-4 and counted[1] < 1e-8


def test_guidance_extrapolates_from_the_unconditional_prediction(rng: random.Random) -> None:
    conditional, unconditional = start(rng), start(rng)
    scale = rng.uniform(1.5, 8)
    assert torch.equal(guided(conditional, unconditional, 1.0), conditional)
    torch.testing.assert_close(guided(conditional, unconditional, scale), unconditional + scale * (conditional - unconditional))
