"""Noise is a pure function of its keys; targets, losses and weights are the papers' and diffusers'."""

from __future__ import annotations

import math
import random
from typing import Any, Literal, get_args

import pytest
import torch
from diffusers import DDPMScheduler, training_utils
from torch import Tensor

from model.config import DiffusionProcess, PredictionType
from model.diffusion import noise
from model.diffusion.schedules import alpha_sigma, compute_snr

PROCESSES = [
    *(DiffusionProcess(prediction_type) for prediction_type in get_args(PredictionType)),
    DiffusionProcess("v", zero_terminal_snr=True),
]


def diffusers_schedule(process: DiffusionProcess) -> Any:
    return DDPMScheduler(
        num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2", rescale_betas_zero_snr=process.zero_terminal_snr
    )


def normal(rng: random.Random, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(rng.randrange(2**32)), dtype=dtype)


def uniform(rng: random.Random, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(rng.randrange(2**32))
    return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)


def targets(process: DiffusionProcess, x_0: Tensor, eps: Tensor, time: Tensor) -> Tensor:
    """What a perfect network says, from the definitions; that of "epsilon" stands behind the skip, in the place of v's."""
    if process.prediction_type in ("v", "epsilon"):
        # v rotates: the noised patches of (eps, -clean) in the place of (clean, eps).
        return noise.add_noise(process, eps, -x_0, time)
    return {"flow": eps - x_0, "x": x_0}[process.prediction_type]


# ---- draws


def test_draws_are_those_of_their_key() -> None:
    """By numpy's Philox under the key's hash; what is learnt from old data must not change unnoticed."""
    drawn = noise.sample_noise(12, 345, torch.tensor([0, 67, 8_000_000_001]), torch.tensor([1, 2, 1]), 3)
    assert [value.hex() for value in drawn.time.tolist()] == [
        "0x1.c2f2660000000p-1",
        "0x1.2246100000000p-4",
        "0x1.2fecec0000000p-1",
    ]
    assert [[value.hex() for value in row] for row in drawn.noise.tolist()] == [
        ["0x1.472a340000000p-1", "-0x1.04b5e60000000p-1", "-0x1.6d14f00000000p+0"],
        ["-0x1.0610180000000p+0", "0x1.6df9080000000p-1", "0x1.ff54a60000000p-2"],
        ["0x1.5cd88e0000000p-2", "-0x1.04a6620000000p+1", "-0x1.0f298e0000000p-1"],
        ["-0x1.68054c0000000p+0", "-0x1.7e9b340000000p+0", "0x1.7684520000000p+0"],
    ]


def test_each_of_a_streams_64_bits_changes_the_noise(monkeypatch: pytest.MonkeyPatch, rng: random.Random) -> None:
    """A hash gives the upper 32 bits as good as the lower ones; with half of them many latents would share their noise."""
    stream, bit = rng.randrange(2**63), rng.randrange(32, 63)

    def drawn(key: int) -> Tensor:
        monkeypatch.setattr(noise, "seed_of", lambda *parts: key)
        return noise.sample_noise(1, 2, torch.tensor([3]), torch.tensor([2]), 4).noise

    assert torch.equal(drawn(stream), drawn(stream))
    assert (drawn(stream) != drawn(stream ^ 1 << bit)).all()


def test_draws_depend_on_seed_step_sample_and_modality_alone(rng: random.Random) -> None:
    samples, counts = torch.tensor([7, 3, 11]), torch.tensor([4, 2, 6])
    seed, step, modality = rng.randrange(100), rng.randrange(100), rng.randrange(3)
    together = noise.sample_noise(seed, step, samples, counts, 5, modality)
    alone = noise.sample_noise(seed, step, samples[1:2], counts[1:2], 5, modality)
    assert torch.equal(together.noise[4:6], alone.noise)
    assert together.time[1] == alone.time[0]
    assert torch.equal(together.noise, noise.sample_noise(seed, step, samples, counts, 5, modality).noise)
    for other in ((seed + 1, step, modality), (seed, step + 1, modality), (seed, step, modality + 1)):
        drawn = noise.sample_noise(*other[:2], samples, counts, 5, other[2])
        assert (drawn.noise != together.noise).all() and (drawn.time != together.time).all()


def test_no_latents_draw_nothing() -> None:
    drawn = noise.sample_noise(0, 0, torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long), 5)
    assert drawn.time.shape == (0,) and drawn.noise.shape == (0, 5)


@pytest.mark.parametrize("modality", [0, 1])
def test_draws_look_uniform_and_normal(modality: int) -> None:
    drawn = noise.sample_noise(0, 0, torch.arange(2000), torch.full((2000,), 2), 8, modality)
    assert abs(drawn.time.mean() - 0.5) < 0.03 and abs(drawn.time.std() - 12**-0.5) < 0.02
    assert abs(drawn.noise.mean()) < 0.03 and abs(drawn.noise.std() - 1) < 0.02
    assert abs(drawn.noise.pow(3).mean()) < 0.1 and abs(drawn.noise.pow(4).mean() - 3) < 0.3
    neighbours = torch.corrcoef(torch.stack([drawn.time[:-1], drawn.time[1:]]))[0, 1]
    assert abs(neighbours) < 0.09


# ---- times


def times(uniform: Tensor, distribution: Any = "uniform", mean: float = 0.0, std: float = 1.0, shift: float = 1.0) -> Tensor:
    return noise.training_time(uniform, distribution=distribution, mean=mean, std=std, shift=shift)


def test_uniform_times_without_a_shift_are_the_draws() -> None:
    drawn = noise.sample_noise(3, 4, torch.arange(50), torch.ones(50, dtype=torch.long), 1).time
    assert torch.equal(times(drawn), drawn)


def test_a_shift_moves_times_towards_noise() -> None:
    time = torch.linspace(0, 1, 11)
    moved = times(time, shift=3.0)
    assert moved[0] == 0 and moved[-1] == 1 and (moved[1:-1] > time[1:-1]).all() and (moved.diff() > 0).all()
    # SD3's eq. 23 at t = 1/2: shift / (1 + shift); and shifts in turn multiply.
    assert moved[5] == pytest.approx(0.75)
    torch.testing.assert_close(times(moved, shift=2.0), times(time, shift=6.0))


def test_logit_normal_times_have_the_density_of_the_paper(rng: random.Random) -> None:
    mean, std = rng.uniform(-1, 1), rng.uniform(0.5, 1.5)
    uniform = torch.linspace(0.001, 0.999, 20_001, dtype=torch.float64)
    time = times(uniform, "logit_normal", mean, std)
    density = uniform.diff() / time.diff()
    middle = (time[1:] + time[:-1]) / 2
    # SD3's eq. 19.
    exponent = -((torch.logit(middle) - mean) ** 2) / (2 * std**2)
    expected = exponent.exp() / (std * math.sqrt(2 * math.pi) * middle * (1 - middle))
    torch.testing.assert_close(density, expected, rtol=2e-3, atol=1e-6)
    ends = times(torch.tensor([0.0, 1.0]), "logit_normal", mean, std, 3.0)
    assert ends.tolist() == [0, 1]


@pytest.mark.parametrize(("name", "wrong"), [("distribution", "normal"), ("std", 0.0), ("shift", -1.0), ("shift", math.nan)])
def test_times_that_cannot_be_are_named(name: Literal["distribution", "std", "shift"], wrong: Any) -> None:
    with pytest.raises(ValueError, match=name):
        times(torch.rand(3), **{name: wrong})


# ---- noise, targets and conversions


@pytest.mark.parametrize(
    "process", [DiffusionProcess("epsilon"), DiffusionProcess("v"), DiffusionProcess("v", zero_terminal_snr=True)]
)
def test_noised_patches_and_velocity_equal_diffusers(process: DiffusionProcess, rng: random.Random) -> None:
    theirs = diffusers_schedule(process)
    x_0, eps = normal(rng, 8, 12, dtype=torch.float32), normal(rng, 8, 12, dtype=torch.float32)
    step = torch.tensor([rng.randrange(1, 1001) for _ in range(7)] + [1000])
    time = (step / 1000).unsqueeze(-1)
    torch.testing.assert_close(
        noise.add_noise(process, x_0, eps, time), theirs.add_noise(x_0, eps, step - 1), rtol=1e-3, atol=1e-4
    )
    velocity = theirs.get_velocity(x_0, eps, step - 1)
    torch.testing.assert_close(
        targets(DiffusionProcess("v", process.zero_terminal_snr), x_0, eps, time), velocity, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("process", PROCESSES)
def test_a_perfect_prediction_gives_back_both_clean_and_noise(process: DiffusionProcess, rng: random.Random) -> None:
    x_0, eps, time = normal(rng, 200, 6), normal(rng, 200, 6), uniform(rng, 200, 1, low=0.001)
    x_t, prediction = noise.add_noise(process, x_0, eps, time), targets(process, x_0, eps, time)
    torch.testing.assert_close(noise.predicted_x_0(process, x_t, prediction, time), x_0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(noise.predicted_noise(process, x_t, prediction, time), eps, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("process", PROCESSES)
def test_any_prediction_splits_the_noised_patches(process: DiffusionProcess, rng: random.Random) -> None:
    x_t, prediction, time = normal(rng, 200, 6), normal(rng, 200, 6), uniform(rng, 200, 1, low=0.001)
    x_0, eps = noise.predicted_x_0(process, x_t, prediction, time), noise.predicted_noise(process, x_t, prediction, time)
    torch.testing.assert_close(noise.add_noise(process, x_0, eps, time), x_t, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(targets(process, x_0, eps, time), prediction, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("process", PROCESSES)
def test_both_ends_are_finite(process: DiffusionProcess, rng: random.Random) -> None:
    time = torch.tensor([[0.0], [1.0]])
    x_0, eps, prediction = (normal(rng, 2, 6, dtype=torch.float32) for _ in range(3))
    x_t = noise.add_noise(process, x_0, eps, time)
    error = noise.squared_error(process, prediction, x_t=x_t, x_0=x_0, noise=eps, time=time)
    for result in (
        noise.predicted_x_0(process, x_t, prediction, time),
        noise.predicted_noise(process, x_t, prediction, time),
        error,
        noise.loss_weight(process, time[:, 0], 5.0),
    ):
        assert result.isfinite().all()
    torch.testing.assert_close(x_t[0], x_0[0])


# ---- the loss


@pytest.mark.parametrize("process", PROCESSES)
def test_a_perfect_prediction_costs_nothing_and_another_does(process: DiffusionProcess, rng: random.Random) -> None:
    x_0, eps, time = normal(rng, 50, 6), normal(rng, 50, 6), uniform(rng, 50, 1)
    x_t, perfect = noise.add_noise(process, x_0, eps, time), targets(process, x_0, eps, time)
    given = {"x_t": x_t, "x_0": x_0, "noise": eps, "time": time}
    assert noise.squared_error(process, perfect, **given).max() < 1e-20
    off = normal(rng, 50, 6)
    # The prediction's error, but for "x" that of the velocity it implies, and for "epsilon" that of the noise.
    scale = {"x": 1 / time.clamp(min=noise.X_TIME_FLOOR), "epsilon": alpha_sigma(process, time).alpha_t}
    expected = (off * scale.get(process.prediction_type, 1)).square()
    torch.testing.assert_close(noise.squared_error(process, perfect + off, **given), expected, rtol=1e-6, atol=1e-9)


def test_the_epsilon_loss_is_the_papers_whatever_the_network_says(rng: random.Random) -> None:
    process, theirs = DiffusionProcess("epsilon"), diffusers_schedule(DiffusionProcess("epsilon"))
    x_0, eps, output = (normal(rng, 100, 6, dtype=torch.float32) for _ in range(3))
    step = torch.tensor([rng.randrange(1, 1000) for _ in range(100)])
    x_t, time = theirs.add_noise(x_0, eps, step - 1), (step / 1000).unsqueeze(-1)
    # diffusers turns what a network says of the velocity on this path into noise; the paper's loss compares that.
    alpha_t = theirs.alphas_cumprod[step - 1].sqrt().unsqueeze(-1)
    predicted = (1 - alpha_t.square()).sqrt() * x_t + alpha_t * output
    found = noise.squared_error(process, output, x_t=x_t, x_0=x_0, noise=eps, time=time)
    torch.testing.assert_close(found, (predicted - eps).square(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(noise.predicted_noise(process, x_t, output, time), predicted, rtol=1e-3, atol=1e-4)
    clean = (x_t - (1 - alpha_t.square()).sqrt() * predicted) / alpha_t
    near = (alpha_t > 0.1).expand_as(clean)  # their float32 table divided by less says little
    torch.testing.assert_close(noise.predicted_x_0(process, x_t, output, time)[near], clean[near], rtol=1e-2, atol=1e-3)


def test_the_x_loss_is_the_flow_loss_of_the_velocity_it_implies(rng: random.Random) -> None:
    x_0, eps, prediction = (normal(rng, 50, 6) for _ in range(3))
    time = uniform(rng, 50, 1, low=noise.X_TIME_FLOOR)
    given: dict[str, Tensor] = {"x_0": x_0, "noise": eps, "time": time}
    given["x_t"] = noise.add_noise(DiffusionProcess("x"), x_0, eps, time)
    implied = noise.predicted_noise(DiffusionProcess("x"), given["x_t"], prediction, time) - prediction
    expected = noise.squared_error(DiffusionProcess("flow"), implied, **given)
    torch.testing.assert_close(noise.squared_error(DiffusionProcess("x"), prediction, **given), expected)


@pytest.mark.parametrize(
    "process", [DiffusionProcess("epsilon"), DiffusionProcess("v"), DiffusionProcess("v", zero_terminal_snr=True)]
)
def test_min_snr_weights_equal_diffusers(process: DiffusionProcess, rng: random.Random) -> None:
    gamma = rng.uniform(1, 10)
    step = torch.tensor([rng.randrange(1, 1000) for _ in range(100)])
    snr = training_utils.compute_snr(diffusers_schedule(process), step - 1)
    expected = snr.clamp(max=gamma) / (snr if process.prediction_type == "epsilon" else snr + 1)
    torch.testing.assert_close(noise.loss_weight(process, step / 1000, gamma), expected, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("process", PROCESSES)
def test_min_snr_weights_make_every_loss_that_of_the_clean_patch(process: DiffusionProcess, rng: random.Random) -> None:
    gamma = rng.uniform(1, 10)
    x_0, eps, prediction, time = normal(rng, 200, 6), normal(rng, 200, 6), normal(rng, 200, 6), uniform(rng, 200, low=0.001)
    x_t = noise.add_noise(process, x_0, eps, time[:, None])
    error = noise.squared_error(process, prediction, x_t=x_t, x_0=x_0, noise=eps, time=time[:, None])
    weighted = noise.loss_weight(process, time, gamma)[:, None] * error
    clean_error = (noise.predicted_x_0(process, x_t, prediction, time[:, None]) - x_0).square()
    expected = compute_snr(process, time).clamp(max=gamma)[:, None] * clean_error
    torch.testing.assert_close(weighted, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("process", PROCESSES)
def test_min_snr_weights_can_be_turned_off_and_are_at_most_one(process: DiffusionProcess) -> None:
    time = torch.linspace(0, 1, 1001)
    assert torch.equal(noise.loss_weight(process, time, 0.0), torch.ones(1001))
    weight = noise.loss_weight(process, time, 5.0)
    assert (weight >= 0).all() and (weight <= 1).all() and weight.max() > 0.4
