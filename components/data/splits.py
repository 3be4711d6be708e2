"""The split of a document: a hash of its key decides, so that the order of reading does not matter."""

from __future__ import annotations

from components.data.config import SplitShares
from core.random import uniform_of


def split_of(key: str, shares: SplitShares, seed: int) -> str:
    """The split of the document called `key`."""
    draw = uniform_of("split", key, seed)
    if draw < shares.validation:
        return "validation"
    return "test" if draw < shares.validation + shares.test else "train"
