"""Solvers from noise to a latent: the noise levels that each visits, and what it makes of each prediction.

For n steps the network is evaluated n times by every solver but Heun, which takes 2n - 1.

On the DDPM path ("epsilon", "v"):
    ddpm   ancestral sampling, the only one that draws (Ho et al., arXiv 2006.11239, eq. 7)
    ddim   first order (Song et al., arXiv 2010.02502, eq. 12 with eta = 0)
    dpmpp  second order, DPM-Solver++ 2M (Lu et al., arXiv 2211.01095, Algorithm 2)
    unipc  UniPC-2 on clean data with B(h) = e^h - 1 (Zhao et al., arXiv 2302.04867, Sec. 3): dpmpp's step, corrected by the
           next prediction, which makes it of third order
On the flow path ("flow", "x"):
    euler  first order
    heun   second order (Karras et al., arXiv 2206.00364, Algorithm 1)
The last step of each is of first order and ends in the clean latent that the last prediction implies.

Legend: alpha_t and sigma_t of a level as in schedules.py; l = log(alpha_t / sigma_t), half the log of SNR; h growth of l in a
step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from model.config import DiffusionProcess, PredictionType
from model.diffusion.noise import predicted_x_0
from model.diffusion.schedules import NUM_DDPM_STEPS, alpha_sigma

Solver = Literal["auto", "ddpm", "ddim", "dpmpp", "unipc", "euler", "heun"]

# The first level, in steps of the DDPM path. The loss of "epsilon" counts what the network says by alpha_t^2: at T that is
# 2e-9, so that nothing is learnt there, and 1e-3 at 980. That of "v" counts it in full.
FIRST_STEP: dict[PredictionType, int] = {"epsilon": 980, "v": NUM_DDPM_STEPS}

# What l takes for alpha_t where there is none, so that solvers of second order have a first step to extrapolate from.
# diffusers' value; on Gaussian data the error at the end moves by less than 4% of itself.
LEAST_ALPHA = 2.0**-12


def solver_times(process: DiffusionProcess, num_steps: int) -> list[float]:
    """num_steps + 1 falling noise levels, from (nearly) pure noise to 0, clean; a function of nothing else.

    Evenly spaced down from the first level ("trailing", Lin et al., arXiv 2305.08891, Table 2), which is 1 on the flow path and
    for "v", with or without zero terminal SNR, and 0.98 for "epsilon" (see FIRST_STEP). On the DDPM path they are rounded to
    multiples of 1 / T, the levels that training knows.
    Raises ValueError for less than one step, and for more steps than the DDPM path has levels.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps: {num_steps} must be at least 1")
    if process.is_flow:
        return [1 - step / num_steps for step in range(num_steps + 1)]
    first = FIRST_STEP[process.prediction_type]
    if num_steps > first:
        raise ValueError(
            f"num_steps: {num_steps} must be at most {first}, the levels from which {process.prediction_type!r} is solved"
        )
    return [round(first * (num_steps - step) / num_steps) / NUM_DDPM_STEPS for step in range(num_steps + 1)]


def chosen_solver(process: DiffusionProcess, solver: Solver) -> Solver:
    """The solver by its own name: "auto" is euler on the flow path and ddim on the DDPM path.

    Raises ValueError for one of the other path.
    """
    allowed = ("euler", "heun") if process.is_flow else ("ddim", "ddpm", "dpmpp", "unipc")
    if solver == "auto":
        return allowed[0]
    if solver not in allowed:
        raise ValueError(
            f"solver: {solver!r} does not go with prediction_type {process.prediction_type!r};"
            f" choose of auto, {', '.join(allowed)}"
        )
    return solver


def guided(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (Ho and Salimans, arXiv 2207.12598); a scale of 1 is the conditional prediction."""
    return torch.lerp(unconditional, conditional, scale)


class Level(NamedTuple):
    """One noise level on the way."""

    time: float
    alpha_t: float
    sigma_t: float
    log_ratio: float
    """l; infinite at clean."""


def levels_of(process: DiffusionProcess, times: Sequence[float]) -> list[Level]:
    """The levels at some times, to Python's precision."""
    at = alpha_sigma(process, torch.tensor(times, dtype=torch.float64))
    return [
        Level(time, alpha_t, sigma_t, math.log((alpha_t or LEAST_ALPHA) / sigma_t) if sigma_t else math.inf)
        for time, alpha_t, sigma_t in zip(times, at.alpha_t.tolist(), at.sigma_t.tolist(), strict=True)
    ]


class Denoiser:
    """One latent on its way from noise to clean.

    While not `done`: evaluate the network at `time` on what `advance` returned last (on normal noise at first) and hand both to
    `advance`. Solvers remember earlier predictions, and Heun's second evaluation stands at the same time as the next step's
    first, so every latent has a denoiser of its own.
    """

    def __init__(self, process: DiffusionProcess, solver: Solver, num_steps: int, generator: torch.Generator) -> None:
        """generator: of the noise that "ddpm" adds. Raises ValueError as `chosen_solver` and `solver_times` do."""
        self._process = process
        self._generator = generator
        self._advance = _ADVANCE[chosen_solver(process, solver)]
        self._path = levels_of(process, solver_times(process, num_steps))
        self._at = 0
        self._begun: Tensor | None = None  # where the step began whose end is to be corrected
        self._earlier: list[Tensor] = []  # what previous evaluations said, the latest last: clean latents, or velocities
        self.num_evaluations = 0

    @property
    def time(self) -> float:
        """Noise level at which the network is to be evaluated next; 0 when done."""
        return self._path[self._at].time

    @property
    def done(self) -> bool:
        """Whether the latent is clean."""
        return self._at == len(self._path) - 1

    def advance(self, x_t: Tensor, prediction: Tensor) -> Tensor:
        """What the network is to see next; the clean latent, once that makes it `done`.

        x_t: what the network saw, of any shape. prediction: what it said, of the same shape.
        """
        assert not self.done
        self.num_evaluations += 1
        return self._advance(self, x_t, prediction)

    # ---- the DDPM path: all but the ancestral solver move as DDIM does, each towards its own idea of the clean latent

    def _ddim(self, x_t: Tensor, prediction: Tensor) -> Tensor:
        return self._move(x_t, self._clean(x_t, prediction))

    def _dpmpp(self, x_t: Tensor, prediction: Tensor) -> Tensor:
        x_0 = self._clean(x_t, prediction)
        ahead = self._extrapolated(x_0)
        self._earlier = [x_0]
        return self._move(x_t, ahead)

    def _unipc(self, x_t: Tensor, prediction: Tensor) -> Tensor:
        x_0 = self._clean(x_t, prediction)
        if self._begun is not None:
            x_t = ddim_step(self._begun, self._corrected(x_0), *self._path[self._at - 1 : self._at + 1])
        ahead = self._extrapolated(x_0)
        self._begun, self._earlier = x_t, [*self._earlier[-1:], x_0]
        return self._move(x_t, ahead)

    def _ddpm(self, x_t: Tensor, prediction: Tensor) -> Tensor:
        now, then = self._path[self._at : self._at + 2]
        kept, narrowed = (now.alpha_t / then.alpha_t) ** 2, then.sigma_t / now.sigma_t
        x_0 = self._clean(x_t, prediction)
        # Of the posterior q(x_then | x_now, x_0), whose deviation is narrowed * sqrt(1 - kept).
        mean = then.alpha_t * (1 - kept) / now.sigma_t**2 * x_0 + math.sqrt(kept) * narrowed**2 * x_t
        self._at += 1
        if self.done:
            return mean
        fresh = torch.randn(x_t.shape, generator=self._generator, dtype=x_t.dtype, device=self._generator.device)
        return mean + narrowed * math.sqrt(1 - kept) * fresh.to(x_t.device)

    def _clean(self, x_t: Tensor, prediction: Tensor) -> Tensor:
        return predicted_x_0(self._process, x_t, prediction, torch.tensor(self.time, dtype=torch.float64))

    def _move(self, x_t: Tensor, x_0: Tensor) -> Tensor:
        now, then = self._path[self._at : self._at + 2]
        self._at += 1
        return ddim_step(x_t, x_0, now, then)

    def _growth(self, step: int) -> float:
        """h of a step."""
        return self._path[step + 1].log_ratio - self._path[step].log_ratio

    def _extrapolated(self, x_0: Tensor) -> Tensor:
        """The clean latent in the middle of the step ahead, on the line through the last two (2211.01095, Algorithm 2)."""
        # The last step ends where l is infinite, so that no line leads there.
        if not self._earlier or self._at == len(self._path) - 2:
            return x_0
        reach = self._growth(self._at) / self._growth(self._at - 1)
        return x_0 + reach / 2 * (x_0 - self._earlier[-1])

    def _corrected(self, x_0: Tensor) -> Tensor:
        """The clean latent over the step just made, now that its end is known (2302.04867, UniC with p = 1, then 2)."""
        at_start = self._earlier[-1]
        if len(self._earlier) < 2:
            return at_start + (x_0 - at_start) / 2
        # The paper's system of two equations: sums of the unknown weights, and of weights times ratios, are known integrals.
        h = self._growth(self._at - 1)
        ratio = -self._growth(self._at - 2) / h
        decay = math.expm1(-h)
        first = -(decay / h + 1) / decay
        second = 2 * ((decay / h + 1) / h - 1 / 2) / decay
        before = (first - second) / (1 - ratio)
        return at_start + before / ratio * (self._earlier[-2] - at_start) + (first - before) * (x_0 - at_start)

    # ---- the flow path: each solver moves along a velocity

    def _euler(self, x_t: Tensor, prediction: Tensor) -> Tensor:
        velocity = self._velocity(x_t, prediction)
        self._at += 1
        return x_t + self._span() * velocity

    def _heun(self, x_t: Tensor, prediction: Tensor) -> Tensor:
        if self._begun is None:
            velocity = self._velocity(x_t, prediction)
            self._at += 1
            # At time 0 there is nothing left to predict: the last step stays Euler's.
            if not self.done:
                self._begun, self._earlier = x_t, [velocity]
            return x_t + self._span() * velocity
        # The step was made with the velocity at its start; make it again with the mean of both ends.
        begun, velocity = self._begun, (self._earlier[0] + self._velocity(x_t, prediction)) / 2
        self._begun = None
        return begun + self._span() * velocity

    def _velocity(self, x_t: Tensor, prediction: Tensor) -> Tensor:
        # No floor under the time as in training: the network is never evaluated below 1 / num_steps.
        return (x_t - prediction) / self.time if self._process.prediction_type == "x" else prediction

    def _span(self) -> float:
        """How far time went (it falls) in the step that ends here."""
        return self._path[self._at].time - self._path[self._at - 1].time


def ddim_step(x_t: Tensor, x_0: Tensor, now: Level, then: Level) -> Tensor:
    """From one level to a lower one, were `x_0` the clean latent all along (2010.02502, eq. 12 with eta = 0).

    All solvers of the DDPM path but the ancestral one are this step: exp(-h) = then.sigma_t * now.alpha_t / (now.sigma_t *
    then.alpha_t), so alpha_t * (1 - exp(-h)) of 2211.01095 is the factor of `x_0`, without
    infinities at either end of the path.
    """
    narrowed = then.sigma_t / now.sigma_t
    return narrowed * x_t + (then.alpha_t - narrowed * now.alpha_t) * x_0


_ADVANCE: dict[Solver, Callable[[Denoiser, Tensor, Tensor], Tensor]] = {
    "ddpm": Denoiser._ddpm,
    "ddim": Denoiser._ddim,
    "dpmpp": Denoiser._dpmpp,
    "unipc": Denoiser._unipc,
    "euler": Denoiser._euler,
    "heun": Denoiser._heun,
}
