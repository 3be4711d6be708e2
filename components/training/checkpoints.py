"""What a checkpoint holds: the networks that a training changes, their optimisers' moments and what else it counts.

Every tensor has a name, "part/name", by which torch.distributed.checkpoint stores it in pieces, one file a part and worker
(shard_files.py), all under one manifest. Any number of workers reads the pieces, each what it needs, whether its tensors are
whole or sharded. The files are safetensors: nothing in a checkpoint can run.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from core.errors import BadInput
from core.manifest import check_files, manifest_of

if TYPE_CHECKING:
    from torch.distributed.checkpoint.metadata import Metadata

KIND = "checkpoint"
# Of names and files; checkpoints before it had neither shards nor parts in their names.
LAYOUT = 2
# What optimisers keep of a parameter: AdamW the first three, `step` counting its updates, and Muon the last.
MOMENTS = ("step", "exp_avg", "exp_avg_sq", "momentum_buffer")
OTHERS = "others"


class Trained(NamedTuple):
    """A network, and the optimisers that move it, each some of its parameters; an average of weights has none."""

    network: nn.Module
    optimisers: Sequence[torch.optim.Optimizer] = ()


class TrainingState(Protocol):
    """All that a training changes. Whatever else a step reads is a pure function of (seed, step)."""

    def networks(self) -> dict[str, Trained]:
        """By the names of their parts."""
        ...

    def others(self) -> dict[str, Tensor]:
        """Tensors that belong to no network; worker 0's are kept, and loading copies into those of all."""
        ...


def tensors_of(state: TrainingState) -> dict[str, Tensor]:
    """All tensors of the state by "part/name": themselves, no copies."""
    found = {f"{OTHERS}/{name}": tensor for name, tensor in state.others().items()}
    for part, (network, optimisers) in state.networks().items():
        found |= {f"{part}/{name}": tensor for name, tensor in network.state_dict().items()}
        # By name, where torch's own state_dict counts: a parameter more or less shifts nobody's moments.
        names: dict[Tensor, str] = {parameter: name for name, parameter in network.named_parameters()}
        for parameter, values in (each for optimiser in optimisers for each in optimiser.state.items()):
            found |= {f"{part}.{moment}/{names[parameter]}": values[moment] for moment in MOMENTS if moment in values}
    return found


def load_state(folder: Path, state: TrainingState) -> int:
    """Load into `state` what `folder` holds, its bytes checked before any is used; returns the step it was saved after.

    Raises BadInput where the manifest does not vouch for the folder.
    """
    step = int(checked(folder)["step"])
    read_state(folder, state)
    return step


def checked(folder: Path, share: slice = slice(None), *, only: str = "") -> dict[str, Any]:
    """The manifest of a checkpoint; BadInput where it does not vouch for the files.

    share: of the files in order, only: whose names begin so; the others are not looked at.
    """
    manifest = manifest_of(folder, kind=KIND, remedy="it is not used")
    if manifest.get("layout") != LAYOUT:
        raise BadInput(f"{folder} was written by another version of this program, in a form that this one does not read")
    if strange := {path.name for path in folder.glob("*.safetensors")} - manifest["files"].keys():
        raise BadInput(f"{folder} holds {min(strange)}, which its manifest does not list; it is not used")
    names = [name for name in sorted(manifest["files"]) if name.startswith(only)]
    check_files(folder, manifest, names[share], remedy="the checkpoint is not used")
    return manifest


def read_state(folder: Path, state: TrainingState) -> None:
    """Load what `checked` has vouched for. Each worker reads its own shards alone, and no other worker is waited for.

    Raises BadInput, before anything is changed, where the checkpoint is of another model.
    """
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner

    reader = dcp.HuggingFaceStorageReader(str(folder))
    saved = reader.read_metadata()
    _check_fits(folder, state, saved)
    with torch.no_grad(), warnings.catch_warnings():
        # That there is one process alone, which is what no_dist says.
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        planner = DefaultLoadPlanner(flatten_state_dict=False)
        try:
            dcp.load(_targets(state, saved), storage_reader=reader, planner=planner, no_dist=True)
        except dcp.CheckpointException as error:
            raise reason_of(error) from None


def _check_fits(folder: Path, state: TrainingState, saved: Metadata) -> None:
    """Raise BadInput where a tensor other than a moment is missing, or is of another size."""
    sizes = {name: getattr(stored, "size", None) for name, stored in saved.state_dict_metadata.items()}
    for name, tensor in tensors_of(state).items():
        is_moment = name.partition("/")[0].endswith(tuple(f".{moment}" for moment in MOMENTS))
        if not is_moment and sizes.get(name) != tensor.size():
            found = f"{name} is {list(sizes[name] or ())}" if name in sizes else f"it has no {name}"
            expected = f"the state has {list(tensor.size())}"
            raise BadInput(f"{folder} is of another model ({found}, {expected}); move it away, and training begins anew")


def _targets(state: TrainingState, saved: Metadata) -> dict[str, Tensor]:
    """Where each of the state's tensors is to be loaded, the moments that the checkpoint has among them."""
    for part, (network, optimisers) in state.networks().items():
        network.state_dict()  # where a network is sharded, its parameters are whole between passes, and this shards them
        names = {parameter: name for name, parameter in network.named_parameters()}
        for optimiser in optimisers:
            for parameter in (each for group in optimiser.param_groups for each in group["params"]):
                optimiser.state[parameter] = _moments(part, names[parameter], parameter, optimiser.state[parameter], saved)
    return tensors_of(state)


def _moments(part: str, name: str, parameter: Tensor, known: Mapping[str, Tensor], saved: Metadata) -> dict[str, Tensor]:
    """A parameter's moments as the checkpoint has them, empty yet."""
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    found: dict[str, Tensor] = {}
    for moment in MOMENTS:
        stored = saved.state_dict_metadata.get(f"{part}.{moment}/{name}")
        if not isinstance(stored, TensorStorageMetadata):
            continue
        size, dtype = stored.size, stored.properties.dtype
        if moment in known and known[moment].shape == size:
            found[moment] = known[moment]
        elif size == parameter.shape:
            found[moment] = torch.empty_like(parameter, dtype=dtype)  # sharded as the parameter is
        else:
            # AdamW's fused step on an accelerator reads even the count there.
            found[moment] = torch.empty(size, dtype=dtype, device=parameter.device)
    return found


def reason_of(error: Any) -> BaseException:
    """What the first of the workers raised inside torch.distributed.checkpoint, which has a wrapper around it."""
    return error.failures[min(error.failures)][0]
