"""A step of an optimiser, and the moving average of the weights beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from components.training.parallel import whole


def clip_and_step(
    network: nn.Module,
    optimisers: Sequence[torch.optim.Optimizer],
    *,
    clip_norm: float,
    learning_rate: float,
    beta1: float | None = None,
) -> float:
    """One step at this rate; returns the gradient's norm before clipping. No weight moves where it is not finite.

    optimisers: each of some of the network's parameters. beta1: of this step, where it changes from step to step. A group of
    parameters with a rate_share takes that part of learning_rate.
    """
    parameters = [each for each in network.parameters() if each.grad is not None]
    # Of shards each worker knows its part of the norm.
    total_norm = whole(nn.utils.get_total_norm([cast(Tensor, each.grad) for each in parameters]))
    nn.utils.clip_grads_with_norm_(parameters, clip_norm, total_norm)
    # The one place where a training step waits for an accelerator: whether weights may move is decided by this number.
    norm = float(total_norm)
    for group in (group for optimiser in optimisers for group in optimiser.param_groups):
        group["lr"] = learning_rate * group.get("rate_share", 1.0)
        if beta1 is not None:
            group["betas"] = (beta1, group["betas"][1])
    for optimiser in optimisers:
        if math.isfinite(norm):
            optimiser.step()
        optimiser.zero_grad()
    return norm


def update_ema(ema_model: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Move the EMA weights towards the model's: faster early on, so that the random beginning is soon forgotten."""
    # Torch's function takes a count of averages last, which this decay makes needless: it is not read.
    update = get_ema_multi_avg_fn(min(decay, (1 + step) / (10 + step)))
    update(list(ema_model.parameters()), list(model.parameters()), 0)
