"""Muon: a matrix moves by its momentum made orthogonal (Jordan et al., kellerjordan.github.io/posts/muon; arXiv 2502.16982).

Adam weighs every number of a gradient by itself. Where text's tokens outnumber patches, most of what a shared matrix learns is
text's; an orthogonal step goes equally far in every direction of the matrix, also in those that few patches ask for.
torch.optim.Muon is the same rule, rounded to bfloat16, which is slow where a processor has no instructions for it, and computed
anew by every worker; here the workers share the matrices.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from components.runtime.world import World
from components.training.parallel import local
from components.training.shards import Shards, shards_of

# Of the iteration X <- a X + (b X X^T + c (X X^T)^2) X, chosen by Jordan to lift small singular values fast: they end between
# 0.7 and 1.2 instead of at 1, which training does not mind.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NUM_ITERATIONS = 5
# What an update's numbers are brought to, on average: AdamW's have about this size at the same rate (arXiv 2502.16982, eq. 4).
ADAMW_RMS = 0.2


class Muon(torch.optim.Optimizer):
    """Muon over matrices, with Nesterov momentum, decoupled decay and the size of AdamW's steps.

    A convolution [outputs, inputs, *kernel] counts as the matrix [outputs, inputs * kernel] that it applies at every pixel.

    A group's `num_parts` says how many matrices lie one below the other in each of its parameters (three in queries, keys and
    values): each is made orthogonal by itself.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        lr: float,
        weight_decay: float,
        momentum: float,
        dtype: torch.dtype,
        world: World,
    ) -> None:
        """dtype: of the matrix products. world: the workers among which matrices are dealt out.

        Each has the same gradients, or its shards of them; then a matrix is put together on the worker whose turn it is.
        """
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "num_parts": 1})
        self.dtype, self.world = dtype, world

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Move every parameter that has a gradient, but none where `found_inf` is set to 1, as torch's gradient scaler does."""
        members = [(each, group) for group in self.param_groups for each in group["params"] if each.grad is not None]
        directions = [self._direction(each, group["momentum"]) for each, group in members]
        shards = shards_of([each for each, _ in members])
        if shards:
            self._make_shards_orthogonal(directions, [group["num_parts"] for _, group in members], shards)
        else:
            self._orthogonal(directions, members)
        for (parameter, group), direction in zip(members, directions, strict=True):
            rows = parameter.shape[0] // group["num_parts"]
            size = ADAMW_RMS * math.sqrt(max(rows, math.prod(parameter.shape[1:])))
            weight = local(parameter)
            moved = weight.mul(1 - group["lr"] * group["weight_decay"]).add_(direction, alpha=-group["lr"] * size)
            self._put(weight, moved)

    def _direction(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        """The gradient, and the running mean of the gradients that it is entered in; of this worker's shard."""
        gradient, state = local(cast(Tensor, parameter.grad)), self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        mean = local(state["momentum_buffer"])
        new = mean.lerp(gradient, 1 - momentum)
        self._put(mean, new)
        return gradient.lerp(new, momentum)

    def _put(self, place: Tensor, value: Tensor) -> None:
        """`value` into `place`, unless the step is to be skipped: then what stands there stays, whatever `value` is."""
        skipped: Tensor | None = getattr(self, "found_inf", None)
        place.copy_(value if skipped is None else torch.where(skipped > 0, place, value))

    def _make_shards_orthogonal(self, directions: list[Tensor], num_parts: list[int], shards: Shards) -> None:
        """`directions` in place; each worker makes orthogonal what is its turn, and hands the shards back."""
        # They travel as they are multiplied, which rounds nothing twice.
        for turn in shards.turns(directions, self.dtype):
            if turn.matrix is not None:
                _make_parts_orthogonal(turn.matrix, num_parts[turn.number], self.dtype)
            turn.hand_back()

    def _orthogonal(self, directions: list[Tensor], members: list[tuple[nn.Parameter, dict[str, Any]]]) -> None:
        """`directions` in place, part by part; each worker makes its share, and all get all."""
        costs = [
            num_products(each.flatten(1).shape, group["num_parts"])
            for each, (_, group) in zip(directions, members, strict=True)
        ]
        for direction, (_, group), owner in zip(directions, members, dealt_out(costs, self.world.size), strict=True):
            if owner != self.world.rank:
                direction.zero_()
                continue
            _make_parts_orthogonal(direction, group["num_parts"], self.dtype)
        if self.world.size > 1:
            # The others' are zeros: a sum hands them round, without a rounding; and each is a product of that precision.
            vector_to_parameters(self.world.all_reduce(parameters_to_vector(directions).to(self.dtype)), directions)


def dealt_out(costs: Sequence[int], num_workers: int) -> list[int]:
    """Which worker takes each of some pieces of work: the costliest first, each by whoever has least to do until then."""
    loads, owners = [0] * num_workers, [0] * len(costs)
    for number in sorted(range(len(costs)), key=lambda number: costs[number], reverse=True):
        owners[number] = loads.index(min(loads))
        loads[owners[number]] += costs[number]
    return owners


def num_products(shape: Sequence[int], num_parts: int) -> int:
    """Multiplications of one iteration on num_parts matrices that lie one below the other, [m, n] together."""
    small, large = sorted((shape[0] // num_parts, shape[1]))
    return num_parts * small**2 * (2 * large + small)


def _make_parts_orthogonal(matrix: Tensor, num_parts: int, dtype: torch.dtype) -> None:
    """In place, each of the matrices that lie one below the other."""
    for part in matrix.chunk(num_parts):
        part.copy_(orthogonalised(part.flatten(1), dtype).view_as(part))


def orthogonalised(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """[m, n] -> about the orthogonal matrix nearest to it: its singular values all near 1. Zeros stay zeros."""
    a, b, c = COEFFICIENTS
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide.to(dtype)
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(NUM_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x if wide is matrix else x.T).to(matrix.dtype)
