"""In which backward passes the workers exchange gradients: in a step's last one, whose sum is then that of all passes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from torch import nn


@contextmanager
def gradient_sync(network: nn.Module, *, is_last: bool) -> Iterator[None]:
    """Around a forward pass and its backward pass; without is_last gradients add up on this worker alone.

    Those of sharded weights go to the workers that keep them in every pass, because a whole model's gradients would take the
    memory that sharding saves; between HSDP's machines, where a pass would cost most, they are averaged in the last one.
    network: wrapped for replicated weights (DistributedDataParallel) or for sharded ones (FSDP2's `fully_shard`), or bare.
    """
    # By what they offer, and not by their classes: importing those takes a bare network's process a second.
    if hasattr(network, "set_requires_all_reduce"):
        # Stays until it is set anew: the last pass of a step turns it on again.
        cast(Any, network).set_requires_all_reduce(is_last)
        yield
    elif hasattr(network, "no_sync") and not is_last:
        with cast(Any, network).no_sync():
            yield
    else:
        yield
