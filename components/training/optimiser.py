"""A step of an optimiser, and the moving average of the weights beside it; whether they move, the device decides by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from components.training.parallel import local, whole


class Stepped(NamedTuple):
    """What became of a step, on the device."""

    gradient_norm: Tensor
    """Before clipping, float32 []."""
    skipped: Tensor
    """float32 []: 1 where nothing moved, 0 elsewhere."""


def is_not_finite(gradient_norm: Tensor) -> Tensor:
    """1 where it is not, 0 elsewhere, float32 []."""
    return (~gradient_norm.isfinite()).float()


def clip_and_step(
    network: nn.Module,
    optimisers: Sequence[torch.optim.Optimizer],
    *,
    clip_norm: float,
    learning_rate: float,
    beta1: float | None = None,
    refuses: Callable[[Tensor], Tensor] = is_not_finite,
) -> Stepped:
    """One step at this rate; where `refuses` says so of the gradient's norm, weights and moments stay as they are.

    optimisers: each of some of the network's parameters, AdamW fused. beta1: of this step, where it changes from step to step.
    A group of parameters with a rate_share takes that part of learning_rate. refuses: gives 1 or 0, float32 [], for the norm
    before clipping; a gradient that is not finite it must refuse.
    """
    parameters = [each for each in network.parameters() if each.grad is not None]
    # Of shards each worker knows its part of the norm.
    norm = whole(nn.utils.get_total_norm([cast(Tensor, each.grad) for each in parameters]))
    nn.utils.clip_grads_with_norm_(parameters, clip_norm, norm)
    skipped = refuses(norm)
    for group in (group for optimiser in optimisers for group in optimiser.param_groups):
        group["lr"] = learning_rate * group.get("rate_share", 1.0)
        if beta1 is not None:
            group["betas"] = (beta1, group["betas"][1])
    for optimiser in optimisers:
        # What torch's gradient scaler tells an optimiser by: were the host to look at the norm, it would wait for the device.
        cast(Any, optimiser).found_inf = skipped
        optimiser.step()
        del cast(Any, optimiser).found_inf
        optimiser.zero_grad()
    return Stepped(norm, skipped)


@torch.no_grad()
def update_ema(ema_model: nn.Module, model: nn.Module, decay: float, step: int, skipped: Tensor) -> None:
    """Move the EMA weights towards the model's: faster early on, so that the random beginning is soon forgotten.

    skipped: as of the step; 1 leaves them where they are.
    """
    share = (1 - skipped) * (1 - min(decay, (1 + step) / (10 + step)))
    averages, weights = ([local(part).detach() for part in each.parameters()] for each in (ema_model, model))
    torch._foreach_lerp_(averages, weights, [share] * len(averages))
