"""Random numbers as pure functions of a key: no order of work and no number of workers changes what is drawn.

A key of integers is a seed and what tells one draw from another: a step, a number, the constant of a stream. A key of text is a
seed and a name. Each function has a hash of its own; to give two of them one hash would change the numbers of one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np

WORD = 0xFFFFFFFFFFFFFFFF
# Of splitmix64 (Steele, Lea and Flood, 2014).
STEP, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


# What `philox` gives; pure torch code draws from it, and imports no numpy.
Stream = np.random.Generator


def generator(*key: int) -> np.random.Generator:
    """numpy's generator for this key alone."""
    return np.random.default_rng(key)


def philox(seeds: Iterable[int]) -> Iterator[Stream]:
    """For each seed of up to 64 bits the start of a stream of its own; every bit counts, where torch's CPU generator reads 32.

    One generator that is set anew (to make one takes ten times as long): draw from it before the next seed.
    """
    bits = np.random.Philox(key=0)
    generator, start = np.random.Generator(bits), bits.state
    for seed in seeds:
        start["state"]["key"][0] = seed
        bits.state = start
        yield generator


def seed_of(*key: int) -> int:
    """A seed of 63 bits; neighbouring keys give unrelated ones."""
    mixed = 0
    for part in key:
        mixed = (mixed ^ (part & WORD)) + STEP & WORD
        mixed = (mixed ^ mixed >> 30) * FIRST & WORD
        mixed = (mixed ^ mixed >> 27) * SECOND & WORD
        mixed ^= mixed >> 31
    return mixed >> 1


def uniform(seed: int, step: int, index: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1), float64, one for each index of integers."""
    mixed = _mix(_mix(_mix(np.array([seed], np.uint64)) + np.uint64(step)) + index.astype(np.uint64))
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def uniform_of(purpose: str, name: str, seed: int) -> float:
    """A number in [0, 1], uniform over names; draws of different purposes are independent."""
    return int.from_bytes(_sha256(f"{purpose}\0{seed}\0{name}")[:8], "big") / 2**64


def seed_of_name(seed: int, name: str) -> int:
    """A seed of 56 bits."""
    return int.from_bytes(_sha256(f"{seed}:{name}")[:7], "big")


def rank_of(seed: int, name: str) -> bytes:
    """What names are sorted by for an order that is random, and the same wherever they are read from."""
    return _sha256(f"{seed} {name}")


def words_of(names: Iterable[str]) -> np.ndarray:
    """uint64 [N], uniform over names, without a seed."""
    return np.array([int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) for name in names], np.uint64)


def _sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _mix(value: np.ndarray) -> np.ndarray:
    """splitmix64 on arrays, which wrap around without a warning."""
    value = value + np.uint64(STEP)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(FIRST)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(SECOND)
    return value ^ (value >> np.uint64(31))
