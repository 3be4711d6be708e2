"""What does training of the autoencoder change, and how does it survive a kill? One safetensors file under a manifest.

Images, noise, the rate and restarted codes are pure functions of (seed, step), so weights, moments and the step are all of
it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from components.training.config import AutoencoderConfig
from components.training.discriminator import PatchDiscriminator
from components.training.run_folder import folder_of, written_checkpoint
from core.errors import BadInput
from core.manifest import read_manifest
from model.latents.autoencoder import Autoencoder, QuantisedAutoencoder
from model.latents.sizes import PRESETS

KIND = "autoencoder-checkpoint"
FILE = "state.safetensors"
# A fresh posterior has deviation 1, as loud as the latents it is drawn around; from e^-3 on, learning begins at once.
FIRST_LOG_VARIANCE = -6.0
MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class Learner(NamedTuple):
    """A network and the optimiser that moves it."""

    network: nn.Module
    optimiser: torch.optim.AdamW


class State(NamedTuple):
    """ema_model: None without averaging. discriminator: None without the adversarial term.

    code_counts: how often each code was the nearest since the last restart, int64 [K]; empty for kind kl.
    """

    autoencoder: Autoencoder
    optimiser: torch.optim.AdamW
    ema_model: Autoencoder | None
    discriminator: Learner | None
    code_counts: Tensor


def fresh_autoencoder(config: AutoencoderConfig, side_px: int) -> Autoencoder:
    """An untrained one for images of side_px, its weights those of the seed; BadInput where its levels do not fit."""
    size = PRESETS[config.preset]
    if side_px % 2**size.num_halvings:
        raise BadInput(
            f"autoencoder.preset {config.preset} halves the side {size.num_halvings} times, and {side_px} px cannot be"
        )
    torch.manual_seed(config.seed)
    if config.kind == "vq":
        codes = config.codes
        return QuantisedAutoencoder.with_codes(size, num_codes=codes.number, code_dim=codes.width, sample_side_px=side_px)
    autoencoder = Autoencoder.create(**size._asdict(), sample_side_px=side_px)
    to_moments = autoencoder.network.quant_conv
    with torch.no_grad():
        to_moments.weight[size.latent_channels :] = 0
        to_moments.bias[size.latent_channels :] = FIRST_LOG_VARIANCE
    return autoencoder


def new_state(config: AutoencoderConfig, side_px: int, device: torch.device) -> State:
    """Everything before the first step."""
    autoencoder = fresh_autoencoder(config, side_px).to(device)
    discriminator = None
    if config.loss.gan_weight:
        network = PatchDiscriminator().to(device)
        discriminator = Learner(
            network, torch.optim.AdamW(network.parameters(), betas=(0.5, 0.9), weight_decay=0.0, fused=True)
        )
    return State(
        autoencoder=autoencoder,
        optimiser=torch.optim.AdamW(autoencoder.parameters(), betas=(0.9, 0.95), weight_decay=0.0, fused=True),
        ema_model=copy.deepcopy(autoencoder).requires_grad_(False) if config.ema_decay else None,
        discriminator=discriminator,
        code_counts=torch.zeros(config.codes.number if config.kind == "vq" else 0, dtype=torch.int64, device=device),
    )


def save_checkpoint(store: Path, state: State, step: int) -> Path:
    """Write the state after `step` whole or not at all; returns its folder."""
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _tensors(state)}
    with written_checkpoint(store, step, kind=KIND) as partial:
        save_file(tensors, partial / FILE)
    return folder_of(store, step)


def load_checkpoint(folder: Path, state: State) -> int:
    """Load into `state` what `folder` holds, its bytes checked before any is used; returns the step it was saved after.

    Raises BadInput where the manifest does not vouch for the folder.
    """
    step = int(read_manifest(folder, kind=KIND)["step"])
    _load(folder / FILE, state)
    return step


def _networks(state: State) -> dict[str, tuple[nn.Module, torch.optim.AdamW | None]]:
    networks: dict[str, tuple[nn.Module, torch.optim.AdamW | None]] = {"autoencoder": (state.autoencoder, state.optimiser)}
    if state.ema_model is not None:
        networks["ema_model"] = (state.ema_model, None)
    if state.discriminator is not None:
        networks["discriminator"] = state.discriminator
    return networks


def _tensors(state: State) -> Iterator[tuple[str, Tensor]]:
    yield "code_counts", state.code_counts
    for part, (network, optimiser) in _networks(state).items():
        for name, tensor in network.state_dict().items():
            yield f"{part}.weight.{name}", tensor
        for name, parameter in network.named_parameters():
            # The discriminator has no moments before its first step.
            if optimiser is not None and optimiser.state[parameter]:
                for moment in MOMENTS:
                    yield f"{part}.{moment}.{name}", optimiser.state[parameter][moment]


def _load(file: Path, state: State) -> None:
    from safetensors.torch import load_file

    tensors = load_file(file)
    state.code_counts.copy_(tensors["code_counts"])
    for part, (network, optimiser) in _networks(state).items():
        network.load_state_dict({name: tensors[f"{part}.weight.{name}"] for name in network.state_dict()})
        for name, parameter in network.named_parameters():
            if optimiser is not None and f"{part}.step.{name}" in tensors:
                moments = {moment: tensors[f"{part}.{moment}.{name}"] for moment in MOMENTS}
                optimiser.state[parameter] = {moment: value.to(parameter.device) for moment, value in moments.items()}
