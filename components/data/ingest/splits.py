"""Which split and layout does a document get? A hash of its key decides, so the order of reading does not matter."""

from __future__ import annotations

import hashlib

from components.data.config import SplitShares


def uniform_of(purpose: str, key: str, seed: int) -> float:
    """A number in 0..1, uniform over keys; draws of different purposes are independent."""
    digest = hashlib.sha256(f"{purpose}\0{seed}\0{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_of(key: str, shares: SplitShares, seed: int) -> str:
    """The split of the document called `key`."""
    draw = uniform_of("split", key, seed)
    if draw < shares.validation:
        return "validation"
    return "test" if draw < shares.validation + shares.test else "train"
