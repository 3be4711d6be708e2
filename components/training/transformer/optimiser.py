"""AdamW, or Muon with AdamW for what does not lie between hidden states, and a rate that warms up and falls by a cosine.

Transfusion, arXiv 2408.11039, Sec. 4.1: AdamW (0.9, 0.95), eps 1e-8, decay 0.1, clip 1.0, cosine after a linear
warm-up.
"""

from __future__ import annotations

import math
from collections import defaultdict

import torch
from torch import Tensor, nn

from components.runtime.world import World
from components.training.muon import Muon
from components.training.precision import product_type
from components.training.transformer.config import TrainConfig
from model.latents.unet_patches import UNetPatchLayers
from model.transfusion import Transfusion

# Convolutions of the U-Net that have a latent's own channels on one side, and its matrices to and from the transformer.
OUTER = (".conv_in.weight", ".conv_out.weight")
BETWEEN = (".proj_in.weight", ".proj_out.weight")
# How many matrices lie one below the other in a parameter of that name: queries, keys, values; gate and up.
NUM_PARTS = {"qkv.weight": 3, "gate_up.weight": 2}


def build_optimisers(model: Transfusion, config: TrainConfig, world: World) -> tuple[torch.optim.Optimizer, ...]:
    """AdamW over all parameters, or over those that Muon is not for: embedding, head, norms, what reads or writes a latent."""
    hidden_size = model.config.hidden_size
    if config.optimiser == "adamw":
        return (adamw(list(model.parameters()), config, hidden_size),)
    unets = tuple(f"{name}." for name, each in model.named_modules() if isinstance(each, UNetPatchLayers))
    matrices = {name: each for name, each in model.named_parameters() if is_for_muon(name, each, unets)}
    others = [each for name, each in model.named_parameters() if name not in matrices]
    members: defaultdict[tuple[int, float], list[nn.Parameter]] = defaultdict(list)
    for name, each in matrices.items():
        members[num_parts(name), rate_share(each, hidden_size)].append(each)
    muon = Muon(
        [{"params": params, "num_parts": number, "rate_share": share} for (number, share), params in members.items()],
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        momentum=config.muon_momentum,
        dtype=product_type(config.precision, world.device),
        world=world,
    )
    return adamw(others, config, hidden_size), muon


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


def adamw(parameters: list[nn.Parameter], config: TrainConfig, hidden_size: int) -> torch.optim.AdamW:
    """AdamW over `parameters`; norms and biases, and nothing else, are free of decay.

    hidden_size: of the transformer, for whose matrices the rate is chosen.
    """
    members: defaultdict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for parameter in parameters:
        decay = config.weight_decay if parameter.dim() >= 2 else 0.0
        members[decay, rate_share(parameter, hidden_size)].append(parameter)
    groups = [{"params": params, "weight_decay": decay, "rate_share": share} for (decay, share), params in members.items()]
    betas = (config.adam_beta1, config.adam_beta2)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, eps=config.adam_eps, fused=True)


def rate_share(parameter: Tensor, hidden_size: int) -> float:
    """A parameter's part of the learning rate: 1, but less for a convolution that sums over more numbers than a matrix does.

    A step of Adam moves each weight by about the rate, and so what a layer says by about rate * fan-in (Yang et al., arXiv
    2203.03466, Table 8); Muon's steps are as long. A 3 x 3 convolution of 256 channels sums over 2,304 numbers: at the rate of
    a transformer of width 256 it never settles.
    """
    return min(1.0, hidden_size / parameter[0].numel()) if parameter.dim() > 2 else 1.0


def learning_rate(config: TrainConfig, step: int) -> float:
    """The rate of optimiser step `step` (from 1): a pure function, so that a restart needs no schedule's state."""
    if step <= config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    done = (step - config.warmup_steps) / (config.max_steps - config.warmup_steps)
    return config.min_learning_rate + (config.learning_rate - config.min_learning_rate) * (1 + math.cos(math.pi * done)) / 2
