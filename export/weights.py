"""Weights read from a folder; one sentence where they do not load, or hold numbers that are not finite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from torch import nn

from core.errors import BadInput

T = TypeVar("T", bound=nn.Module)


def load_weights(load: Callable[[Path], T], folder: Path) -> T:
    """load(folder); raises BadInput where that fails, or where a weight is not finite."""
    try:
        module = load(folder)
    except MemoryError:
        raise
    except Exception as error:
        # safetensors, JSON, diffusers and torch each raise exceptions of their own.
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadInput(f"the weights in {folder} do not load ({first}); run the stage that writes it again") from None
    broken = [name for name, weight in module.state_dict().items() if not weight.isfinite().all()]
    if broken:
        raise BadInput(
            f"the weights in {folder} hold numbers that are not finite, {broken[0]} first of {len(broken)};"
            " run the stage that writes it again"
        )
    return module
