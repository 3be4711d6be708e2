"""The course of a training as what it was computed from and to: which rows each step read, and every bit of its losses."""

from __future__ import annotations

import struct
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from components.training.transformer.run import TransformerRun
from core.files import read_json_lines

COMPARED = ("train/loss", "train/loss_text", "train/loss_image", "train/gradient_norm", "validation/loss")

Losses = dict[int, dict[str, float]]
Rows = dict[int, list[int]]


class Curve(NamedTuple):
    """What a run left: numbers by step and name, and rows by step in the workers' order."""

    losses: Losses
    rows: Rows


class Difference(NamedTuple):
    """bits: in which numbers differ, all of a number that only one has. The samples are packed rows."""

    bits: int
    samples_lost: int
    samples_doubled: int


def losses_of(run: TransformerRun) -> Losses:
    """What stands in the journal; JSON keeps every bit of a double."""
    found: Losses = defaultdict(dict)
    for entry in read_json_lines(run.journal):
        found[int(entry["step"])] |= {name: float(entry[name]) for name in COMPARED if name in entry}
    return dict(found)


def curve_of(run: TransformerRun) -> Curve:
    """Of a run that has ended."""
    return Curve(losses_of(run), rows_of(run))


def rows_of(run: TransformerRun) -> Rows:
    """The rows that each step was taken with in the end: a step that a kill undid was taken again by a later attempt."""
    attempts: dict[int, int] = {}
    parts: dict[tuple[int, int], dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for log in sorted(run.folder.glob("rows-*.log"), key=lambda path: int(path.stem.partition("-")[2])):
        for line in log.read_text().splitlines():
            attempt, step, *rows = map(int, line.split())
            attempts[step] = max(attempt, attempts.get(step, 0))
            parts[attempt, step][int(log.stem.partition("-")[2])] += rows
    return {
        step: [row for rank in sorted(parts[attempt, step]) for row in parts[attempt, step][rank]]
        for step, attempt in attempts.items()
        if step <= run.config.max_steps
    }


def difference(expected: Curve, found: Curve) -> Difference:
    """Between an undisturbed run and one that was killed."""
    bits = sum(
        different_bits(numbers.get(name), found.losses.get(step, {}).get(name))
        for step, numbers in expected.losses.items()
        for name in numbers.keys() | found.losses.get(step, {}).keys()
    )
    bits += sum(64 * len(found.losses[step]) for step in found.losses.keys() - expected.losses.keys())
    lost = doubled = 0
    for step in expected.rows.keys() | found.rows.keys():
        wanted, read = Counter(expected.rows.get(step, [])), Counter(found.rows.get(step, []))
        lost, doubled = lost + (wanted - read).total(), doubled + (read - wanted).total()
        bits += int(expected.rows.get(step) != found.rows.get(step) and wanted == read)  # the same rows in another order
    return Difference(bits, lost, doubled)


def retaken(expected: Losses, seen: Losses) -> int:
    """The bits in which steps differ that were reported before a kill, and may have been taken again after it."""
    return sum(
        different_bits(expected.get(step, {}).get(name), value)
        for step, values in seen.items()
        for name, value in values.items()
    )


def different_bits(one: float | None, other: float | None) -> int:
    """Of two doubles; 64 where there is only one."""
    if one is None or other is None:
        return 64
    left, right = (struct.unpack("<Q", struct.pack("<d", number))[0] for number in (one, other))
    return (left ^ right).bit_count()


def whole_epochs(rows: Mapping[int, Sequence[int]], num_rows: int) -> tuple[int, int]:
    """Rows that an epoch of the steps in order lacks, and has twice; an epoch that is not over may lack some."""
    read = [row for step in sorted(rows) for row in rows[step]]
    epochs = [Counter(read[start : start + num_rows]) for start in range(0, len(read), num_rows)]
    doubled = sum(count - 1 for epoch in epochs for count in epoch.values())
    return sum(num_rows - len(epoch) for epoch in epochs if epoch.total() == num_rows), doubled


def largest_relative_difference(expected: Losses, found: Losses) -> float:
    """Of all numbers that both have."""
    return max(
        abs(value - found[step][name]) / max(abs(value), 1e-12)
        for step, values in expected.items()
        for name, value in values.items()
    )
