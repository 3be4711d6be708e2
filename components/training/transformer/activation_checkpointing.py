"""Activations that are computed again in the backward pass instead of being kept, arranged from outside of the model.

Of a block, torch keeps whatever a gradient needs: about thirty hidden states a position. "full" keeps what enters a block, and
runs the whole block twice. "selective" keeps the results of matrix products and of attention too, which take most of the time,
and computes again what is cheap: norms, rotations, SwiGLU, casts. Either way the same numbers come out.

What torch.compile made is left alone by "selective": its compiler makes this choice itself, region by region.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from components.training.transformer.config import ActivationCheckpointing
from model.transfusion import Transfusion

aten = torch.ops.aten
PRODUCTS = {aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default, aten.linear.default}


def checkpoint_activations(model: Transfusion, kind: ActivationCheckpointing) -> None:
    """Change how the blocks of `model` run, in place; names of weights and results stay as they are.

    After `compile_for_training` and before `shard`. Copies of the model run as it does.
    """
    for block in model.transformer.blocks:
        if kind == "full":
            block.forward = _run_again(block.forward)
        elif kind == "selective":
            # Attention lies between the two, outside of both: what its gradient needs is kept.
            for name in ("qkv", "output_mlp"):
                if name not in vars(block):
                    setattr(block, name, _run_again(getattr(block, name), context_fn=_keeping_products))


def _run_again(method: Any, **options: Any) -> MethodType:
    """A module's method, bound to the same module, that keeps its inputs and is run again when gradients are due."""
    # The function, for the module follows by itself into a copy.
    function: Callable[..., Any] = method.__func__

    def run(module: torch.nn.Module, *given: Any) -> Any:
        # Nothing in a block draws random numbers.
        return checkpoint(partial(function, module), *given, use_reentrant=False, preserve_rng_state=False, **options)

    return MethodType(run, method.__self__)


def _keeping_products() -> Any:
    return create_selective_checkpoint_contexts(_policy)


def _policy(context: Any, operation: Any, *arguments: Any, **options: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in PRODUCTS else CheckpointPolicy.PREFER_RECOMPUTE
