"""A training state of two small layers, an average of them and a count, for what takes no model to test."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from components.runtime.world import World
from components.training.checkpoint_folders import folder_of
from components.training.checkpointer import Checkpointer
from components.training.checkpoints import Trained, tensors_of

ALONE = World(0, 1, torch.device("cpu"))


class TinyState:
    """shard: called on a network before its optimiser is made, fully_shard say."""

    def __init__(self, seed: int, *, width: int = 6, shard: Callable[[nn.Module], object] = lambda network: None) -> None:
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(5, width), nn.Linear(width, 3, dtype=torch.float32))
        self.ema_model = copy.deepcopy(self.model).requires_grad_(False)
        for network in (self.model, self.ema_model):
            shard(network)
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=0.1)
        self.count = torch.tensor([0, seed], dtype=torch.int64)

    def networks(self) -> dict[str, Trained]:
        return {"model": Trained(self.model, [self.optimiser]), "ema_model": Trained(self.ema_model)}

    def others(self) -> dict[str, Tensor]:
        return {"count": self.count}

    def step(self, number: int) -> float:
        """One of the optimiser and of the average, the same on any number of workers; returns the loss."""
        inputs = torch.sin(torch.arange(20.0).view(4, 5) * number)
        loss = self.model(inputs).square().mean()
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()
        with torch.no_grad():
            for average, weight in zip(self.ema_model.parameters(), self.model.parameters(), strict=True):
                average.lerp_(weight, 0.5)
        self.count += 1
        return float(loss.detach())


def after(num_steps: int, seed: int, **options: object) -> TinyState:
    """The state after so many steps."""
    state = TinyState(seed, **options)  # pyright: ignore[reportArgumentType]
    for number in range(1, num_steps + 1):
        state.step(number)
    return state


def values(state: TinyState) -> dict[str, Tensor]:
    """Copies of all that it holds, shards put together."""
    whole = {name: each.full_tensor() if isinstance(each, DTensor) else each for name, each in tensors_of(state).items()}
    return {name: each.detach().clone() for name, each in whole.items()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Bit for bit."""
    assert found.keys() == expected.keys()
    for name, each in expected.items():
        assert found[name].dtype == each.dtype and torch.equal(found[name], each), name


def save(store: Path, state: TinyState, step: int, world: World = ALONE) -> Path:
    """A checkpoint, on disk."""
    with Checkpointer(store, state, world, print) as checkpointer:
        checkpointer.save(step)
    return folder_of(store, step)


def restored(store: Path, state: TinyState, said: list[str], world: World = ALONE) -> int:
    """The step of the checkpoint that was loaded."""
    with Checkpointer(store, state, world, said.append) as checkpointer:
        return checkpointer.restore()
