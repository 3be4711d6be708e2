"""Decay is kept from vectors, convolutions move no faster than matrices, and averages follow."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from components.runtime.world import World
from components.training.muon import Muon
from components.training.optimiser import clip_and_step, update_ema
from components.training.transformer.optimiser import adamw
from tests.components.training.conftest import changed


def test_only_matrices_decay() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    optimiser = adamw(dict(model.named_parameters()), changed(weight_decay=0.5, learning_rate=0.1), hidden_size=3)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    for name, parameter in model.named_parameters():
        expected = before[name] * (1 - 0.1 * 0.5) if parameter.dim() >= 2 else before[name]
        torch.testing.assert_close(parameter, expected)


def test_a_convolution_moves_what_it_says_no_faster_than_a_matrix_does() -> None:
    width = 32
    model = nn.Sequential(nn.Linear(width, 8), nn.Conv2d(width, 8, 3), nn.Conv1d(8, 8, 3), nn.Conv2d(16, 8, 1))
    optimiser = adamw(dict(model.named_parameters()), changed(weight_decay=0.0), hidden_size=width)
    before = [layer.weight.detach().clone() for layer in model]  # type: ignore[union-attr]
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    clip_and_step(model, [optimiser], clip_norm=1e9, learning_rate=0.01)
    # The first step of Adam moves every weight by the rate; each of the first two sums over the moves of its fan-in.
    moved = [(layer.weight - old)[0].sum().item() for layer, old in zip(model, before, strict=True)]  # type: ignore[union-attr,operator]
    assert moved == pytest.approx([-0.01 * width, -0.01 * width, -0.01 * 24, -0.01 * 16], rel=1e-3)


def test_averages_follow_fast_at_first_and_slowly_later() -> None:
    ema_model, model = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    nn.init.zeros_(ema_model.weight)
    nn.init.ones_(model.weight)
    update_ema(ema_model, model, decay=0.99, step=1, skipped=torch.zeros(()))
    torch.testing.assert_close(ema_model.weight, torch.full((2, 2), 1 - 2 / 11))
    nn.init.zeros_(ema_model.weight)
    update_ema(ema_model, model, decay=0.99, step=10_000, skipped=torch.zeros(()))
    torch.testing.assert_close(ema_model.weight, torch.full((2, 2), 0.01))


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_refused_step_leaves_no_trace(optimiser: str, bad: float) -> None:
    torch.manual_seed(3)
    world = World(0, 1, torch.device("cpu"))
    model = nn.ModuleDict({"transformer": nn.Linear(6, 4), "head": nn.Linear(4, 2)})
    ema_model = copy.deepcopy(model)
    config = changed(optimiser=optimiser)
    matrices = [model["transformer"].weight] if optimiser == "muon" else []
    others = {name: each for name, each in model.named_parameters() if all(each is not matrix for matrix in matrices)}
    optimisers: list[torch.optim.Optimizer] = [adamw(others, config, hidden_size=4)]
    if matrices:
        groups = [{"params": matrices}]
        optimisers.append(Muon(groups, lr=0.01, weight_decay=0.1, momentum=0.9, dtype=torch.float32, world=world))

    def take(step: int, factor: float) -> None:
        for number, each in enumerate(model.parameters()):
            each.grad = factor * torch.randn(each.shape, generator=torch.Generator().manual_seed(10 * step + number))
        stepped = clip_and_step(model, optimisers, clip_norm=1.0, learning_rate=0.01)
        assert stepped.skipped.item() == (0.0 if math.isfinite(factor) else 1.0)
        update_ema(ema_model, model, 0.9, step, stepped.skipped)

    def everything() -> list[torch.Tensor]:
        kept = [value for optimiser in optimisers for values in optimiser.state.values() for value in values.values()]
        return [each.detach().clone() for each in (*model.parameters(), *ema_model.parameters(), *kept)]

    take(1, 1.0)
    before = everything()
    take(2, bad)
    assert all(map(torch.equal, everything(), before))
    take(3, 1.0)
    assert not any(map(torch.equal, everything(), before))
