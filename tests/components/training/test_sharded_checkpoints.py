"""A checkpoint of any number of workers, whole or in shards, loads on any other, and what befalls one worker all are told."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from components.runtime.world import World
from components.training.checkpoint_folders import folder_of
from components.training.checkpointer import Checkpointer
from components.training.checkpoints import KIND, checked
from components.training.whole_network import write_network
from core.errors import BadInput
from core.manifest import manifest_of
from tests.components.training.tiny_state import TinyState, after, assert_same, restored, save, values

# Odd, so that shards are of unequal sizes, and the last layer has three outputs for two workers.
WIDTH = 7


def sharded(network: nn.Module, shape: tuple[int, ...] = (2,)) -> None:
    """By rows, or by rows among replicas."""
    names = ("shard",) if len(shape) == 1 else ("replicate", "shard")
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=names)
    for layer in network.children():
        fully_shard(layer, mesh=mesh)
    fully_shard(network, mesh=mesh)


def hybrid(network: nn.Module) -> None:
    sharded(network, (2, 1))


def two_workers(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    world = World(rank, 2, torch.device("cpu"))
    found: dict[str, object] = {}
    elastic(folder, world, found)
    broken(folder, world, found)
    (folder / f"found-{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def elastic(folder: Path, world: World, found: dict[str, object]) -> None:
    """Two workers in shards -> one -> two in shards -> two with copies -> replicas of shards -> two in shards."""
    state = TinyState(seed=1, width=WIDTH, shard=sharded)
    restored(folder / "one", state, [], world)
    found["from one"] = [state.step(number) for number in (3, 4)]
    save(folder / "two", state, 4, world)
    found["files"] = sorted(path.name for path in folder_of(folder / "two", 4).iterdir())
    found["bytes of worker"] = bytes_of(folder_of(folder / "two", 4), world.rank)
    expected = values(state)
    if world.rank == 0:
        torch.save(expected, folder / "expected.pt")
        alone = TinyState(seed=2, width=WIDTH)
        restored(folder / "two", alone, [])
        assert_same(values(alone), expected)
        save(folder / "back", alone, 4)
    dist.barrier()
    other = state
    chain = (("back", sharded), ("copies", None), ("hybrid", hybrid), ("shards", sharded))
    for number, (name, shard) in enumerate(chain):
        other = TinyState(seed=3 + number, width=WIDTH, **({"shard": shard} if shard else {}))
        assert restored(folder / ("back" if number == 0 else chain[number - 1][0] + "-2"), other, [], world) == 4
        assert_same(values(other), expected)
        save(folder / f"{name}-2", other, 4, world)
    found["goes on"] = other.step(5)
    found["all"] = state.step(5)


def bytes_of(folder: Path, rank: int) -> int:
    """What a worker wrote."""
    return sum(path.stat().st_size for path in folder.glob(f"*.rank-{rank}.safetensors"))


def broken(folder: Path, world: World, found: dict[str, object]) -> None:
    """A full disk, a flipped byte and another folder, each on worker 1 alone."""
    store = folder / "broken"
    state = after(2, seed=5, width=4000, shard=sharded)
    save(store, state, 2, world)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Checkpointer(store, state, world, print) as checkpointer:
        if world.rank == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        checkpointer.save(3)
        try:
            checkpointer.wait()
        except OSError as error:
            found["full"] = [error.errno, Path(error.filename).name]
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        dist.barrier()
        found["left"] = sorted(path.name for path in store.iterdir())
        checkpointer.save(4)
    if world.rank == 0:
        path = next(folder_of(store, 4).glob("ema_model.rank-1.safetensors"))
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    dist.barrier()
    said = list[str]()
    found["passed over"] = restored(store, state, said, world)
    found["said"] = said
    try:
        restored(store if world.rank == 0 else folder / "elsewhere", state, [], world)
    except BadInput as error:
        found["elsewhere"] = str(error)


class Ended(NamedTuple):
    folder: Path
    found: list[dict]
    expected: dict[str, Tensor]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    folder = tmp_path_factory.mktemp("sharded")
    save(folder / "one", after(2, seed=9, width=WIDTH), 2)
    torch.multiprocessing.start_processes(two_workers, (folder,), nprocs=2, start_method="spawn")
    found = [json.loads((folder / f"found-{rank}.json").read_text()) for rank in range(2)]
    return Ended(folder, found, torch.load(folder / "expected.pt", weights_only=True))


def test_steps_go_on_the_same_on_other_workers(ended: Ended) -> None:
    alone = after(2, seed=9, width=WIDTH)
    for found in ended.found:
        assert found["from one"] == pytest.approx(
            [after(2, seed=9, width=WIDTH).step(3), after(3, seed=9, width=WIDTH).step(4)]
        )
        assert found["goes on"] == found["all"]
    for number in (3, 4):
        alone.step(number)
    for name, value in values(alone).items():
        torch.testing.assert_close(ended.expected[name], value, rtol=1e-5, atol=1e-6)


def test_one_worker_takes_what_two_wrote_and_two_take_it_back(ended: Ended) -> None:
    for name in ("two", "back", "copies-2", "hybrid-2", "shards-2"):
        state = TinyState(seed=11, width=WIDTH)
        assert restored(ended.folder / name, state, []) == 4
        assert_same(values(state), ended.expected)


def test_each_worker_writes_its_shards_and_worker_0_what_all_hold(ended: Ended) -> None:
    files = ended.found[0]["files"]
    assert "model.exp_avg.rank-0.safetensors" in files and "model.exp_avg.rank-1.safetensors" in files
    assert "others.rank-0.safetensors" in files and "others.rank-1.safetensors" not in files
    shards = [load_file(folder_of(ended.folder / "two", 4) / f"model.rank-{rank}.safetensors") for rank in range(2)]
    sizes = [sum(each.numel() for each in shard.values()) for shard in shards]
    assert sum(sizes) == sum(each.numel() for each in TinyState(seed=0, width=WIDTH).model.parameters())
    assert min(sizes) > 0.3 * sum(sizes), "neither has the whole model"
    for name in ("copies-2", "hybrid-2"):
        assert not list(folder_of(ended.folder / name, 4).glob("*.rank-1.*")), "copies of one thing are written once"


def test_a_failure_of_one_worker_is_raised_by_all(ended: Ended) -> None:
    for found in ended.found:
        assert found["full"][1].endswith(".rank-1.safetensors"), found
        assert found["left"] == ["step-00000002"]


def test_all_pass_over_what_one_finds_broken(ended: Ended) -> None:
    assert [found["passed over"] for found in ended.found] == [2, 2]
    said = ended.found[0]["said"] + ended.found[1]["said"]
    assert sum("ema_model.rank-1.safetensors does not have the bytes" in line for line in said) == 1
    assert "worker 1 does not see" in ended.found[1]["elsewhere"] and "1 of 2 workers" in ended.found[0]["elsewhere"]


def test_the_finished_file_is_what_the_whole_model_would_have_written(ended: Ended, tmp_path: Path) -> None:
    for name in ("two", "back"):
        write_network(folder_of(ended.folder / name, 4), "ema_model", tmp_path / name)
    weights = {
        each.removeprefix("ema_model/"): value for each, value in ended.expected.items() if each.startswith("ema_model/")
    }
    save_file(weights, tmp_path / "whole", metadata={"format": "pt"})
    assert (tmp_path / "two").read_bytes() == (tmp_path / "back").read_bytes() == (tmp_path / "whole").read_bytes()
    damaged = folder_of(ended.folder / "shards-2", 4) / "ema_model.rank-0.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(BadInput, match=r"ema_model\.rank-0"):
        write_network(damaged.parent, "ema_model", tmp_path / "none")


def test_no_file_of_a_checkpoint_can_run(ended: Ended) -> None:
    folder = folder_of(ended.folder / "two", 4)
    checked(folder)
    assert manifest_of(folder, kind=KIND)["step"] == 4
    assert {path.suffix for path in folder.iterdir()} == {".safetensors", ".json"}
