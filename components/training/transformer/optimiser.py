"""AdamW with decay on matrices only, and a rate that warms up and falls by a cosine; convolutions take a share of it.

Transfusion, arXiv 2408.11039, Sec. 4.1: AdamW (0.9, 0.95), eps 1e-8, decay 0.1, clip 1.0, cosine after a linear
warm-up.
"""

from __future__ import annotations

import math
from collections import defaultdict

import torch
from torch import Tensor, nn

from components.training.transformer.config import TrainConfig


def build_optimiser(model: nn.Module, config: TrainConfig, hidden_size: int) -> torch.optim.AdamW:
    """AdamW over all parameters of `model`; norms and biases, and nothing else, are free of decay.

    hidden_size: of the transformer, for whose matrices the rate is chosen.
    """
    members: defaultdict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for parameter in model.parameters():
        decay = config.weight_decay if parameter.dim() >= 2 else 0.0
        members[decay, rate_share(parameter, hidden_size)].append(parameter)
    groups = [{"params": params, "weight_decay": decay, "rate_share": share} for (decay, share), params in members.items()]
    betas = (config.adam_beta1, config.adam_beta2)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, eps=config.adam_eps, fused=True)


def rate_share(parameter: Tensor, hidden_size: int) -> float:
    """A parameter's part of the learning rate: 1, but less for a convolution that sums over more numbers than a matrix does.

    A step of Adam moves each weight by about the rate, and so what a layer says by about rate * fan-in (Yang et al., arXiv
    2203.03466, Table 8). A 3 x 3 convolution of 256 channels sums over 2,304 numbers: at the rate of a transformer of width 256
    it never settles.
    """
    return min(1.0, hidden_size / parameter[0].numel()) if parameter.dim() > 2 else 1.0


def learning_rate(config: TrainConfig, step: int) -> float:
    """The rate of optimiser step `step` (from 1): a pure function, so that a restart needs no schedule's state."""
    if step <= config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    done = (step - config.warmup_steps) / (config.max_steps - config.warmup_steps)
    return config.min_learning_rate + (config.learning_rate - config.min_learning_rate) * (1 + math.cos(math.pi * done)) / 2
