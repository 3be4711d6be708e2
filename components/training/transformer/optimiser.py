"""AdamW, or Muon with AdamW for what does not lie between hidden states: which parameter is moved by which, and how fast.

Transfusion, arXiv 2408.11039, Sec. 4.1: AdamW (0.9, 0.95), eps 1e-8, decay 0.1, clip 1.0.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from components.runtime.world import World
from components.training.muon import Muon
from components.training.precision import product_type
from components.training.transformer.config import TrainConfig
from model.config import Experts
from model.latents.unet_patches import UNetPatchLayers
from model.transfusion import Transfusion

# Convolutions of the U-Net that have a latent's own channels on one side, and its matrices to and from the transformer.
OUTER = (".conv_in.weight", ".conv_out.weight")
BETWEEN = (".proj_in.weight", ".proj_out.weight")
# How many matrices lie one below the other in a parameter of that name: queries, keys, values; gate and up.
NUM_PARTS = {"qkv.weight": 3, "gate_up.weight": 2}
# What the names of parameters begin with that text alone goes through, and images alone.
TEXT, IMAGES = ("embedding.", "head."), "patch_layers."
# The lists of the transformer that have an entry for text and one for each modality.
WITH_EXPERTS: dict[Experts, tuple[str, ...]] = {
    "shared": (),
    "feed_forward": ("feed_forward",),
    "full": ("attention", "feed_forward", "norms"),
}


def build_optimisers(model: Transfusion, config: TrainConfig, world: World) -> tuple[torch.optim.Optimizer, ...]:
    """AdamW over all parameters, or over those that Muon is not for: embedding, head, norms, what reads or writes a latent.

    What is frozen is in neither.
    """
    unets = tuple(f"{name}." for name, each in model.named_modules() if isinstance(each, UNetPatchLayers))
    trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
    is_muon = config.optimiser == "muon"
    matrices = {name: each for name, each in trained.items() if is_muon and is_for_muon(name, each, unets)}
    others = {name: each for name, each in trained.items() if name not in matrices}
    hidden_size, made = model.config.hidden_size, list[torch.optim.Optimizer]()
    if others:
        made.append(adamw(others, config, hidden_size))
    if matrices:
        made.append(muon(matrices, config, hidden_size, world))
    return tuple(made)


def muon(parameters: Mapping[str, nn.Parameter], config: TrainConfig, hidden_size: int, world: World) -> Muon:
    """Muon over these matrices; arguments as for `adamw`."""
    members: defaultdict[tuple[int, float], list[nn.Parameter]] = defaultdict(list)
    for name, each in parameters.items():
        members[num_parts(name), rate_share(name, each, config, hidden_size)].append(each)
    return Muon(
        [{"params": params, "num_parts": number, "rate_share": share} for (number, share), params in members.items()],
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        momentum=config.muon_momentum,
        dtype=product_type(config.precision, world.device),
        world=world,
    )


def is_for_muon(name: str, parameter: Tensor, unets: tuple[str, ...]) -> bool:
    """Whether it is a matrix from hidden states to hidden states: a block's, or a convolution or matrix of a U-Net.

    With AdamW for its convolutions the U-Net draws colours and places as captions say, and digits at random; with AdamW for the
    two matrices between it and the transformer, a third of the digits. unets: what the names of their parameters begin with.
    """
    if name.startswith("transformer."):
        return parameter.dim() == 2
    return name.startswith(unets) and ((parameter.dim() > 2 and not name.endswith(OUTER)) or name.endswith(BETWEEN))


def num_parts(name: str) -> int:
    """Matrices in a block's parameter."""
    return next((number for ending, number in NUM_PARTS.items() if name.endswith(ending)), 1)


def adamw(parameters: Mapping[str, nn.Parameter], config: TrainConfig, hidden_size: int) -> torch.optim.AdamW:
    """AdamW over these parameters of the model; norms and biases, and nothing else, are free of decay.

    parameters: by their names in the model. hidden_size: of the transformer, for whose matrices the rate is chosen.
    """
    members: defaultdict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, each in parameters.items():
        decay = config.weight_decay if each.dim() >= 2 else 0.0
        members[decay, rate_share(name, each, config, hidden_size)].append(each)
    groups = [{"params": params, "weight_decay": decay, "rate_share": share} for (decay, share), params in members.items()]
    betas = (config.adam_beta1, config.adam_beta2)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, eps=config.adam_eps, fused=True)


def rate_share(name: str, parameter: Tensor, config: TrainConfig, hidden_size: int) -> float:
    """What part of the learning rate a parameter takes: its part of the model's, times less than 1 for some convolutions.

    A step of Adam moves each weight by about the rate, and so what a layer says by about rate * fan-in (Yang et al., arXiv
    2203.03466, Table 8); Muon's steps are as long. A 3 x 3 convolution of 256 channels sums over 2,304 numbers: at the rate of
    a transformer of width 256 it never settles.
    """
    fan_in = min(1.0, hidden_size / parameter[0].numel()) if parameter.dim() > 2 else 1.0
    return fan_in * scale_of(name, config)


def scale_of(name: str, config: TrainConfig) -> float:
    """What the rate of a parameter of this name is multiplied by: text's, images', or that of what both go through."""
    scales, place = config.learning_rate_scales, re.search(r"\.(attention|feed_forward|norms)\.(\d+)\.", name)
    if name.startswith(TEXT):
        return scales.text
    if name.startswith(IMAGES):
        return scales.images
    if place is None or place[1] not in WITH_EXPERTS[config.model.experts]:
        return scales.shared
    # The first expert is text's, the others are modalities' (model/experts.py).
    return scales.images if int(place[2]) else scales.text


def freeze(model: Transfusion, config: TrainConfig) -> None:
    """Take the parameters whose rate is 0 out of the training: no gradient is computed where nothing below needs one."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(scale_of(name, config) > 0)
