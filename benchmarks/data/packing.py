"""Fill of packed rows and speed of packing: mixed documents of 16 to 4096 positions, on one core."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from components.data.encode.packing import fill, pack

ROW_LENGTH, SHORTEST = 4096, 16


def _uniform(generator: np.random.Generator, number: int) -> np.ndarray:
    return generator.integers(SHORTEST, ROW_LENGTH + 1, number)


def _log_uniform(generator: np.random.Generator, number: int) -> np.ndarray:
    """Many short ones and few long ones, as text of the web has."""
    return np.exp(generator.uniform(np.log(SHORTEST), np.log(ROW_LENGTH + 1), number)).astype(np.int64)


def _captioned(generator: np.random.Generator, number: int) -> np.ndarray:
    """Half captioned images of 256 patches, half text."""
    images = 258 + generator.integers(SHORTEST, 100, number // 2)
    return np.concatenate([images, _log_uniform(generator, number - number // 2)])


def _pages(generator: np.random.Generator, number: int) -> np.ndarray:
    """Pages of text with up to seven images of 256 patches."""
    return 258 * generator.integers(0, 8, number) + generator.integers(SHORTEST, 2200, number)


MIXES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "uniform": _uniform,
    "log_uniform": _log_uniform,
    "captioned_images": _captioned,
    "pages_with_images": _pages,
}


def measure(*, quick: bool, rounds: int, seed: int) -> dict[str, Any]:
    """packing_fill and packing_documents_per_s, the lowest of all mixes, and each mix's own."""
    number = 20_000 if quick else 1_000_000
    raw = {}
    for name, draw in MIXES.items():
        lengths = np.minimum(draw(np.random.default_rng(seed), number), ROW_LENGTH)
        times_s, packing = [], pack(lengths, ROW_LENGTH)
        for _ in range(rounds):
            started_s = time.perf_counter()
            packing = pack(lengths, ROW_LENGTH)
            times_s.append(time.perf_counter() - started_s)
        rate = number / statistics.median(times_s)
        raw[name] = {"fill": round(fill(packing, ROW_LENGTH), 5), "documents_per_s": round(rate), "documents": number}
    return {
        "packing_fill": min(each["fill"] for each in raw.values()),
        "packing_documents_per_s": min(each["documents_per_s"] for each in raw.values()),
        "packing": raw,
    }
