"""A checkpoint: the networks that a training changes, their optimisers' moments and what else it counts, under a manifest.

Each part is a file of its own, so that a part at a time is in the CPU's memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from core.files import named
from core.manifest import read_manifest, write_manifest

KIND = "checkpoint"
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
        """By the name of their files."""
        ...

    def others(self) -> dict[str, Tensor]:
        """Tensors that belong to no network; loading copies into them."""
        ...


def save_state(folder: Path, state: TrainingState, step: int) -> None:
    """Write the state after `step` into an empty folder, the manifest last."""
    from safetensors.torch import save_file

    for name, tensors in _parts(state):
        # No file says "none", as before the optimiser's first step.
        if tensors:
            on_cpu = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
            path = folder / f"{name}.safetensors"
            with named(path):
                save_file(on_cpu, path)
    write_manifest(folder, kind=KIND, step=step)


def load_state(folder: Path, state: TrainingState) -> int:
    """Load into `state` what `folder` holds, its bytes checked before any is used; returns the step it was saved after.

    Raises BadInput where the manifest does not vouch for the folder.
    """
    step = int(read_manifest(folder, kind=KIND)["step"])
    for name, (network, optimisers) in state.networks().items():
        network.load_state_dict(_read(folder, name))
        for moment in MOMENTS:
            _load_moment(network, optimisers, moment, _read(folder, f"{name}.{moment}"))
    others = _read(folder, OTHERS)
    for name, tensor in state.others().items():
        tensor.copy_(others[name])
    return step


def _parts(state: TrainingState) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """A file's name and its tensors."""
    yield OTHERS, state.others()
    for name, (network, optimisers) in state.networks().items():
        yield name, network.state_dict()
        for moment in MOMENTS:
            yield f"{name}.{moment}", _moments(network, optimisers, moment)


def _moments(network: nn.Module, optimisers: Sequence[torch.optim.Optimizer], moment: str) -> dict[str, Tensor]:
    """By the parameters' names; nothing before an optimiser's first step, or where it keeps no such moment."""
    # By name, where torch's own state_dict counts: a parameter more or less shifts nobody's moments.
    kept = {parameter: values for optimiser in optimisers for parameter, values in optimiser.state.items()}
    named = {name: kept.get(parameter, {}) for name, parameter in network.named_parameters()}
    return {name: values[moment] for name, values in named.items() if moment in values}


def _load_moment(
    network: nn.Module, optimisers: Sequence[torch.optim.Optimizer], moment: str, values: dict[str, Tensor]
) -> None:
    name_of = {parameter: name for name, parameter in network.named_parameters()}
    for optimiser in optimisers:
        for parameter in (each for group in optimiser.param_groups for each in group["params"]):
            # AdamW's fused step on an accelerator reads even the count there.
            if (name := name_of[parameter]) in values:
                optimiser.state[parameter][moment] = values[name].to(parameter.device)


def _read(folder: Path, name: str) -> dict[str, Tensor]:
    """The tensors of a part; none where it was empty."""
    from safetensors.torch import load_file

    file = folder / f"{name}.safetensors"
    return load_file(file) if file.exists() else {}
