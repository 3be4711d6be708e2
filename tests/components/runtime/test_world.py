"""Workers divide things as NumPy does, and one alone has all of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from components.runtime.world import World


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_every_thing_is_one_workers(size: int) -> None:
    for number in range(20):
        things = np.arange(number)
        for rank, part in enumerate(np.array_split(things, size)):
            assert things[World(rank, size, torch.device("cpu")).slice_of(number)].tolist() == part.tolist()


def test_a_worker_alone_speaks_to_nobody() -> None:
    world, values, network = World(0, 1, torch.device("cpu")), torch.tensor([1.0, 2.0]), nn.Linear(2, 2)
    assert world.agreed(7) == 7
    assert world.all_reduce(values) is values and values.tolist() == [1.0, 2.0]
    assert world.parallel(network) is network
