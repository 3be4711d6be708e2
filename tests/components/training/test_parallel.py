"""Weights are sharded where they do not fit, workers without work keep in step, and matrices come back from where they went."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch import nn

from components.runtime.world import World
from components.training import parallel
from components.training.parallel import evenly, fits, layout_of, local, local_bytes, mesh_of, shard, whole
from components.training.shards import shards_of
from core.errors import BadInput
from model.config import PRESETS

CPU = torch.device("cpu")
SHAPES = ((5, 7), (3, 5), (1, 3), (9, 2, 2), (4, 4))


def test_a_model_is_sharded_where_twenty_bytes_a_parameter_take_over_half_a_device() -> None:
    assert fits(1_400_000_000, 80 * 2**30) and not fits(7_000_000_000, 80 * 2**30)
    assert fits(100, 4000) and not fits(101, 4000)


def test_a_worker_alone_has_everything_whole() -> None:
    alone = World(0, 1, CPU)
    assert [layout_of(wanted, 10**15, alone) for wanted in ("auto", "ddp", "fsdp", "hsdp")] == ["ddp"] * 4
    assert mesh_of("ddp", alone) is None
    tensor = torch.zeros(3, 2)
    assert local(tensor) is tensor and whole(tensor) is tensor and local_bytes([tensor]) == 24


def test_what_is_asked_for_is_what_several_workers_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(World, "agreed", lambda self, number: number)
    two = World(0, 2, CPU, local_size=2)
    assert [layout_of(wanted, 1, two) for wanted in ("ddp", "fsdp", "hsdp")] == ["ddp", "fsdp", "hsdp"]
    assert (layout_of("auto", 1, two), layout_of("auto", 10**15, two)) == ("ddp", "fsdp")
    assert parallel.device_bytes(two) == parallel.device_bytes(World(0, 1, CPU)) // 2


def test_a_worker_with_fewer_items_repeats_one_that_does_not_count() -> None:
    assert evenly([1, 2], 2, [3]) == [(1, True), (2, True)]
    assert evenly([1], 3, [3]) == [(1, True), (1, False), (1, False)]
    assert evenly([], 2, [3]) == [(3, False), (3, False)]
    assert evenly([], 0, []) == []


def test_three_workers_share_uneven_things(tmp_path: Path) -> None:
    seed = random.randrange(2**31)
    print("seed", seed)
    torch.multiprocessing.start_processes(one_of_three, (seed, tmp_path), nprocs=3, start_method="spawn")


def one_of_three(rank: int, seed: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=3)
    world = World(rank, 3, CPU, local_size=3)
    with pytest.raises(BadInput, match="machines have from 1 to 2 workers; give each as many, or set it to fsdp"):
        mesh_of("hsdp", world._replace(local_size=2 if rank < 2 else 1))
    check_turns(seed, world)
    torch.distributed.destroy_process_group()


def check_turns(seed: int, world: World) -> None:
    """Matrices whose rows three workers cannot share evenly, and more of them than one turn takes."""
    torch.manual_seed(seed)
    network = nn.ParameterList(torch.randn(shape) for shape in SHAPES)
    before = [each.detach().clone() for each in network]
    mesh = mesh_of("fsdp", world)
    assert mesh is not None and shards_of(list(network)) is None
    shard(network, (), mesh)
    cut = list(network.parameters())
    assert all(torch.equal(whole(part.detach()), each) for part, each in zip(cut, before, strict=True))
    assert local_bytes(cut) < sum(each.numel() for each in before) * 4
    shards = shards_of(cut)
    assert shards is not None
    for dtype in (torch.float32, torch.bfloat16):
        parts, seen = [local(each).clone() for each in cut], list[int]()
        for turn in shards.turns(parts, dtype):
            if turn.matrix is not None:
                seen.append(turn.number)
                assert torch.equal(turn.matrix, before[turn.number].to(dtype))
                turn.matrix.mul_(turn.number + 2)
            turn.hand_back()
        assert seen == list(range(world.rank, len(SHAPES), 3))
        for number, (part, each) in enumerate(zip(parts, cut, strict=True)):
            assert torch.equal(part, (local(each.detach()).to(dtype) * (number + 2)).float())


def test_the_largest_preset_is_the_one_that_has_to_be_sharded() -> None:
    """On a device of 80 GB, by the weights of the blocks alone."""
    sizes = {
        name: preset.num_hidden_layers * preset.hidden_size * (4 * preset.hidden_size + 3 * preset.intermediate_size)
        for name, preset in PRESETS.items()
    }
    assert [name for name, size in sizes.items() if not fits(size, 80 * 2**30)] == ["7b"]
