"""The counts that every injected fault gives, and the damage that several of them share.

A fault is caught when it is refused by a sentence, set aside alone with its reason, or mended with the bytes of a run that
was left alone. A refusal loses no row: nothing passes for whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[2]


class Counts(NamedTuple):
    """injected, caught: faults. rows_lost, rows_doubled: of a result that passed for whole.

    wrong_bytes_accepted: faults whose damaged bytes, or whose action, got through as if they were right.
    """

    injected: int
    caught: int
    rows_lost: int = 0
    rows_doubled: int = 0
    wrong_bytes_accepted: int = 0


class Found(NamedTuple):
    """ours: of this project. defaults: tool -> what the same faults do to it as it comes. missed: what ours let through.

    note: a fact to print with the counts.
    """

    ours: Counts
    defaults: dict[str, Counts]
    missed: tuple[str, ...] = ()
    note: str = ""


class Setting(NamedTuple):
    """folder: empty, the fault's own. quick: fewer injections. generator: seeded for this fault."""

    folder: Path
    quick: bool
    generator: np.random.Generator


class Trial(NamedTuple):
    """One injection. missed: why it counts as not caught, "" where it was. The rest as in Counts."""

    missed: str = ""
    rows_lost: int = 0
    rows_doubled: int = 0
    wrong_bytes: int = 0


def counted(trials: Iterable[Trial]) -> Counts:
    """The sum over trials."""
    found = list(trials)
    return Counts(
        injected=len(found),
        caught=sum(not trial.missed for trial in found),
        rows_lost=sum(trial.rows_lost for trial in found),
        rows_doubled=sum(trial.rows_doubled for trial in found),
        wrong_bytes_accepted=sum(trial.wrong_bytes for trial in found),
    )


def total(parts: Iterable[Counts]) -> Counts:
    """The sum of every count."""
    return Counts(*(sum(column) for column in zip(Counts(0, 0), *parts, strict=True)))


def misses(trials: Iterable[Trial]) -> tuple[str, ...]:
    """Why each trial that was not caught was not, each reason once."""
    return tuple(dict.fromkeys(trial.missed for trial in trials if trial.missed))


def flip(data: bytes, at: int, bits: int) -> bytes:
    """`data` with `bits` (1..255) of the byte at `at` turned over."""
    damaged = bytearray(data)
    damaged[at] ^= bits
    assert bytes(damaged) != data, "nothing was injected"
    return bytes(damaged)


def flip_somewhere(data: bytes, generator: np.random.Generator) -> bytes:
    """`data` with one random byte changed at random."""
    return flip(data, int(generator.integers(len(data))), int(generator.integers(1, 256)))


@contextmanager
def damaged(path: Path, data: bytes) -> Iterator[None]:
    """`path` holds `data` inside the block and what it held before after it; the file's mode stays."""
    original, mode = path.read_bytes(), path.stat().st_mode
    assert original != data, f"nothing was injected into {path}"
    _replace(path, data, mode)
    try:
        yield
    finally:
        _replace(path, original, mode)


@contextmanager
def environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for the block."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def by_default(read: Callable[[], Any], same: Callable[[Any], Trial]) -> Trial:
    """A tool's answer to a damaged file: any exception is a catch, any value is judged by `same`."""
    try:
        value = read()
    except Exception:  # whatever the tool raises, it has said something
        return Trial()
    return same(value)


def _replace(path: Path, data: bytes, mode: int) -> None:
    # A new file, as a damaged disk block is under a name that nobody wrote to; hard links elsewhere stay.
    path.unlink()
    path.write_bytes(data)
    path.chmod(mode)
