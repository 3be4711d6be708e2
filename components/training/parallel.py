"""How a network lies on the workers that train it, arranged from outside of it: whole on each of them, or in shards.

Whole, each worker averages its gradients with the others' (DistributedDataParallel). In shards, each keeps its part of every
parameter, and with it of its gradient, its moments and its average, and has a block whole for as long as it computes with it
(FSDP2: torch.distributed.fsdp.fully_shard; arXiv 2304.11277). HSDP shards among the workers of a machine and averages between
machines, whose links are slower.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from components.runtime.world import World
from core.errors import BadInput

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.distributed.device_mesh import DeviceMesh

Layout = Literal["ddp", "fsdp", "hsdp"]
Parallel = Literal["auto", "ddp", "fsdp", "hsdp"]
Item = TypeVar("Item")

# Of a parameter on every worker, in float32: itself, its gradient, AdamW's two moments and its moving average.
BYTES_A_PARAMETER = 20
# The other half of a device is for activations, and for what the allocator cannot use.
COMFORTABLE_SHARE = 0.5
# The axes of a mesh: workers that hold the same, and workers that hold a whole together.
REPLICATE, SHARD = "replicate", "shard"


def layout_of(wanted: Parallel, num_parameters: int, world: World) -> Layout:
    """What `wanted` means for a model of this size; the same on all workers, which ask together.

    A worker alone has everything whole. "auto" shards where BYTES_A_PARAMETER do not fit comfortably on worker 0's device.
    """
    if world.size == 1:
        return "ddp"
    if wanted != "auto":
        return wanted
    return "fsdp" if world.agreed(int(not fits(num_parameters, device_bytes(world)))) else "ddp"


def fits(num_parameters: int, num_bytes: int) -> bool:
    """Whether a model, with all that training keeps beside it, leaves room enough in num_bytes."""
    return BYTES_A_PARAMETER * num_parameters <= COMFORTABLE_SHARE * num_bytes


def device_bytes(world: World) -> int:
    """Memory for one worker: its GPU's, or its part of the machine's."""
    import torch

    if world.device.type == "cuda":
        return torch.cuda.get_device_properties(world.device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // max(1, world.local_size)


def mesh_of(layout: Layout, world: World) -> DeviceMesh | None:
    """The workers as `shard` takes them; None where nothing is sharded. Raises BadInput where HSDP's machines are uneven."""
    if layout == "ddp":
        return None
    from torch.distributed.device_mesh import init_device_mesh

    if layout == "fsdp":
        return init_device_mesh(world.device.type, (world.size,), mesh_dim_names=(SHARD,))
    most, least = world.largest(world.local_size), -world.largest(-world.local_size)
    if most != least:
        raise BadInput(
            f"train.parallel is hsdp, and machines have from {least} to {most} workers; give each as many, or set it to fsdp"
        )
    # Ray Train numbers the workers machine by machine.
    return init_device_mesh(world.device.type, (world.size // most, most), mesh_dim_names=(REPLICATE, SHARD))


def shard(
    network: nn.Module,
    parts: Iterable[nn.Module],
    mesh: DeviceMesh,
    *,
    product_type: torch.dtype | None = None,
    is_trained: bool = True,
    also_called: Sequence[str] = (),
) -> None:
    """Cut the parameters of `network` over the mesh, in place; all workers call it, with the same weights.

    parts: modules that are gathered one at a time, and whose `forward` is called by the network's; what lies in none of them
    is gathered together. product_type: what the parts' parameters are gathered in, where that is not their own; gradients are
    summed in float32 in any case. is_trained: a backward pass follows each forward pass. also_called: methods of the network
    that are entry points beside `forward`.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    # Inputs stay as they are: the stream between the parts is float32, and autocast chooses what each product computes in.
    own = MixedPrecisionPolicy(cast_forward_inputs=False)
    rounded = MixedPrecisionPolicy(param_dtype=product_type, reduce_dtype=_float32(), cast_forward_inputs=False)
    for part in parts:
        fully_shard(part, mesh=mesh, mp_policy=rounded if product_type not in (None, _float32()) else own)
    # torch keeps what the last forward pass gathered for the backward pass. Where none follows, it would be there still at the
    # next forward pass, when the shards have moved on.
    fully_shard(network, mesh=mesh, mp_policy=own, reshard_after_forward=None if is_trained else True)
    for method in also_called:
        register_fsdp_forward_method(network, method)


def copy_shards(target: nn.Module, source: nn.Module) -> None:
    """Give `target` the weights of `source`, which is cut in the same way; every worker copies its own."""
    import torch

    with torch.no_grad():
        for to, given in zip(target.parameters(), source.parameters(), strict=True):
            local(to).copy_(local(given))


def joined(network: nn.Module, world: World) -> nn.Module:
    """`network` with gradients that are averaged over the workers, for losses alone: itself where it is sharded."""
    return network if is_sharded(network) else world.parallel(network)


def is_sharded(network: nn.Module) -> bool:
    """Whether `shard` has cut it."""
    # By what it can do: torch's module of such tensors takes a second to load, and most trainings never need it.
    return hasattr(network, "unshard")


def local(tensor: Tensor) -> Tensor:
    """This worker's part of a sharded tensor, and any other as it is. What is written into it is written into the whole."""
    if not hasattr(tensor, "to_local"):
        return tensor
    import torch

    with torch.no_grad():
        return cast(Any, tensor).to_local()


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor put together, on all workers, which all call it; any other as it is."""
    return cast(Any, tensor).full_tensor() if hasattr(tensor, "full_tensor") else tensor


def evenly(items: Sequence[Item], most: int, spare: Sequence[Item]) -> list[tuple[Item, bool]]:
    """The items, each with True; then, with False, repeated ones until there are `most`, as the worker with most items has.

    Where weights are sharded a forward pass is an affair of all workers, which must take as many. spare: what a worker without
    an item repeats; empty where nobody has one.
    """
    return [(item, True) for item in items] + [(item, False) for item in list(items or spare)[:1] * (most - len(items))]


def local_bytes(tensors: Iterable[Tensor]) -> int:
    """What this worker keeps of them."""
    parts = [local(tensor) for tensor in tensors]
    return sum(part.numel() * part.element_size() for part in parts)


def _float32() -> torch.dtype:
    import torch

    return torch.float32
