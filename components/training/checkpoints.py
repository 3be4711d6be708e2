"""How does the transformer's training survive a kill? All its state in safetensors and JSON, under a manifest.

The state is the model, its EMA weights, AdamW's two moments and the step; everything else (rows, noise, rate) is a
pure function of the step.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from components.training.run_folder import folder_of, written_checkpoint
from core.files import read_json, write_json
from core.manifest import read_manifest
from model.transfusion import Transfusion

KIND = "checkpoint"
PARTS = ("model", "ema_model", "first_moment", "second_moment")


class TrainingState(NamedTuple):
    """What training changes: the model, its EMA, and the optimiser (whose state holds the moments)."""

    model: Transfusion
    ema_model: Transfusion
    optimiser: torch.optim.AdamW


def save_checkpoint(store: Path, state: TrainingState, step: int) -> Path:
    """Write the state after `step` whole or not at all; returns its folder."""
    from safetensors.torch import save_file

    with written_checkpoint(store, step, kind=KIND) as partial:
        for name, tensors in zip(PARTS, _parts(state), strict=True):
            save_file(
                {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()},
                partial / f"{name}.safetensors",
            )
        write_json(partial / "step.json", {"step": step})
    return folder_of(store, step)


def load_checkpoint(folder: Path, state: TrainingState) -> int:
    """Load into `state` what `folder` holds, its bytes checked before any is used; returns the step it was saved after.

    Raises BadInput where the manifest does not vouch for the folder.
    """
    from safetensors.torch import load_file

    read_manifest(folder, kind=KIND)
    step = int(read_json(folder / "step.json")["step"])
    model, ema_model, first, second = (load_file(folder / f"{name}.safetensors") for name in PARTS)
    state.model.load_state_dict(model)
    state.ema_model.load_state_dict(ema_model)
    for name, parameter in state.model.named_parameters():
        state.optimiser.state[parameter] = {
            # AdamW's fused step on an accelerator reads the count there.
            "step": torch.tensor(float(step), dtype=torch.float32, device=parameter.device),
            "exp_avg": first[name].to(parameter.device),
            "exp_avg_sq": second[name].to(parameter.device),
        }
    return step


def _parts(state: TrainingState) -> tuple[dict[str, Tensor], ...]:
    moments = {name: state.optimiser.state[parameter] for name, parameter in state.model.named_parameters()}
    first = {name: moment["exp_avg"] for name, moment in moments.items()}
    second = {name: moment["exp_avg_sq"] for name, moment in moments.items()}
    return state.model.state_dict(), state.ema_model.state_dict(), first, second
