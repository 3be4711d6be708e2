"""AdamW with decay on matrices only, and a rate that warms up and falls by a cosine.

Transfusion, arXiv 2408.11039, Sec. 4.1: AdamW (0.9, 0.95), eps 1e-8, decay 0.1, clip 1.0, cosine after a linear
warm-up.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from components.training.transformer.config import TrainConfig


def build_optimiser(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over all parameters of `model`; norms and biases, and nothing else, are free of decay."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    betas = (config.adam_beta1, config.adam_beta2)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, eps=config.adam_eps, fused=True)


def learning_rate(config: TrainConfig, step: int) -> float:
    """The rate of optimiser step `step` (from 1): a pure function, so that a restart needs no schedule's state."""
    if step <= config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    done = (step - config.warmup_steps) / (config.max_steps - config.warmup_steps)
    return config.min_learning_rate + (config.learning_rate - config.min_learning_rate) * (1 + math.cos(math.pi * done)) / 2
