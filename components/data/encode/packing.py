"""Bin packing of documents into rows: computed once, of the fullest rows that are found.

A document is one item, so that no caption is parted from its image. Each row takes the longest document that waits and the
best of the others, found by subset sums over lengths. Rows of one packing pattern are found together: a combination of
lengths is used while documents of these lengths last, so that the work grows with the number of different lengths, not of
documents. Best-fit-decreasing, which packs sequences elsewhere (Krell et al., arXiv 2107.02027), leaves 2 to 3% empty where
most documents are captions of a tenth of a row.

Legend: E entries, each a document in a row.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from components.data.shards import open_arrays, write_arrays
from core.errors import BadInput

# The file of a split's rows, beside its shards.
PACKING = "packing.safetensors"
# Lengths that one search looks at: the longest that fit, and the shortest, which close what gap the long ones leave. Rows of
# up to 256 positions have no more different lengths, so that there the best choice is found; above, nothing was seen to gain.
LONGEST_LOOKED_AT, SHORTEST_LOOKED_AT = 192, 64


class PackingPattern(NamedTuple):
    """Rows that hold the same combination of lengths."""

    num_rows: int
    lengths: tuple[tuple[int, int], ...]
    """(length, how many documents of it) each, in their order in the row."""


class Packing(NamedTuple):
    """Documents of one split in rows; a document may stand in several rows, or in none."""

    row_at: np.ndarray
    """int64 [rows + 1], where each row begins in the entries."""
    document: np.ndarray
    """int64 [E], which document."""
    start: np.ndarray
    """int32 [E], the first of the row's positions that it has."""
    length: np.ndarray
    """int32 [E], how many positions it has."""


def pack(lengths: np.ndarray, row_length: int, repeats: np.ndarray | None = None) -> Packing:
    """Put documents of `lengths` positions into rows of `row_length`, the fullest rows that were found.

    repeats: int64 [documents], how many times each stands in the rows, never twice in one; None is once. Equal input gives
    equal rows. A document longer than a row is an error of the caller.
    """
    assert len(lengths) == 0 or lengths.max() <= row_length, "a document longer than a row"
    if repeats is not None:
        # Round by round: repeats, being of one length, would else stand side by side, and a step would see half the documents.
        rounds = [np.flatnonzero(repeats > number) for number in range(max(1, repeats.max(initial=0)))]
        return _joined([_of_documents(chosen, pack(lengths[chosen], row_length)) for chosen in rounds])
    # A small type is sorted in one pass over the values.
    kind = np.uint16 if row_length < 2**16 else np.int64
    longest_first = np.argsort((row_length - lengths).astype(kind), kind="stable")
    patterns = packing_patterns(lengths, row_length)
    number, entry = _entries(patterns)
    document = np.empty(len(lengths), np.int64)
    document[entry] = longest_first
    row_at = np.cumsum(np.concatenate([[0], number]), dtype=np.int64)
    length = lengths[document].astype(np.int32)
    before = np.cumsum(length, dtype=np.int64) - length
    start = before - np.repeat(before[row_at[:-1]], number)
    return Packing(row_at, document, start.astype(np.int32), length)


def _of_documents(chosen: np.ndarray, packing: Packing) -> Packing:
    """A packing of some documents, in the numbers of all. chosen: int64, the number of each of the some."""
    return packing._replace(document=chosen[packing.document])


def _joined(packings: Sequence[Packing]) -> Packing:
    """One after the other."""
    if len(packings) == 1:
        return packings[0]
    num_entries = np.cumsum([0, *(len(packing.document) for packing in packings)])
    row_at = [packing.row_at[1:] + before for packing, before in zip(packings, num_entries, strict=False)]
    document, start, length = (np.concatenate(arrays) for arrays in list(zip(*packings, strict=True))[1:])
    return Packing(np.concatenate([packings[0].row_at[:1], *row_at]), document, start, length)


def _entries(patterns: list[PackingPattern]) -> tuple[np.ndarray, np.ndarray]:
    """Documents in each row, int64 [rows]; and where in the rows the documents stand, taken the longest first, int64 [E].

    Of documents of one length the first go to the first pattern of row that wants this length, row after row.
    """
    of_pattern = np.repeat(np.arange(len(patterns)), [len(pattern.lengths) for pattern in patterns])
    num_rows = np.array([pattern.num_rows for pattern in patterns], np.int64)
    length = np.array([length for pattern in patterns for length, _ in pattern.lengths], np.int64)
    need = np.array([need for pattern in patterns for _, need in pattern.lengths], np.int64)
    size = np.bincount(of_pattern, need, minlength=len(patterns)).astype(np.int64)
    pattern_at = np.cumsum(num_rows * size) - num_rows * size
    # Where a length's documents begin in each row of its pattern.
    column = np.cumsum(need) - need - (np.cumsum(size) - size)[of_pattern]
    in_order = np.argsort(-length, kind="stable")
    each = np.repeat(in_order, (need * num_rows[of_pattern])[in_order])
    taken = (need * num_rows[of_pattern])[in_order]
    row, place = np.divmod(np.arange(len(each)) - np.repeat(np.cumsum(taken) - taken, taken), need[each])
    return np.repeat(size, num_rows), pattern_at[of_pattern[each]] + row * size[of_pattern[each]] + column[each] + place


def packing_patterns(lengths: np.ndarray, row_length: int) -> list[PackingPattern]:
    """Rows for documents of `lengths`, int64 [documents], each 1..row_length; each row takes the longest document left."""
    number = np.bincount(lengths)
    waiting = np.flatnonzero(number).tolist()
    counts = dict(zip(waiting, number[waiting].tolist(), strict=True))
    patterns: list[PackingPattern] = []
    while waiting:
        chosen = _best_pattern(waiting, counts, row_length)
        num_rows = min([counts[length] // need for length, need in chosen])
        patterns.append(PackingPattern(num_rows, chosen))
        for length, need in chosen:
            counts[length] -= num_rows * need
            if not counts[length]:
                del waiting[bisect_left(waiting, length)]
    return patterns


def _best_pattern(waiting: list[int], counts: dict[int, int], row_length: int) -> tuple[tuple[int, int], ...]:
    """The longest length waiting, and of the others those that leave the least of a row empty.

    waiting: lengths, ascending. How many positions can be left empty are the bits of one integer.
    """
    # The longest is the hardest to place later; what fits beside it is chosen, never whether it goes.
    longest = waiting[-1]
    capacity = row_length - longest
    fitting = bisect_right(waiting, capacity)
    if not fitting:
        return ((longest, 1),)
    # Bit n is set where n positions can be left empty: one shift of a long integer tries a length on all sums at once.
    empty, steps = 1 << capacity, []
    for length in _looked_at(waiting, fitting):
        steps.append((length, empty))
        number = counts[length] - (length == longest)
        empty = empty | empty >> length if number == 1 else _with_repeats(empty, length, min(number, capacity // length))
        if empty & 1:
            # A full row is reached; no other can be better.
            break
    chosen, left = {longest: 1}, (empty & -empty).bit_length() - 1
    # Backwards, a document is taken only where this little was out of reach without it: short ones are kept for later rows.
    for length, empty_before in reversed(steps):
        while not empty_before >> left & 1:
            chosen[length] = chosen.get(length, 0) + 1
            left += length
    return tuple(chosen.items())


def _looked_at(waiting: list[int], fitting: int) -> list[int]:
    """Of the first `fitting` lengths those that a search looks at, the longest first."""
    if fitting <= LONGEST_LOOKED_AT + SHORTEST_LOOKED_AT:
        return waiting[fitting - 1 :: -1]
    return waiting[fitting - 1 : fitting - 1 - LONGEST_LOOKED_AT : -1] + waiting[SHORTEST_LOOKED_AT - 1 :: -1]


def _with_repeats(empty: int, length: int, number: int) -> int:
    """What can be left empty with up to `number` documents of `length` more: 1, 2, 4, ... of them and the rest at a time."""
    at_once = 1
    while number > 0:
        at_once = min(at_once, number)
        empty |= empty >> length * at_once
        number -= at_once
        at_once *= 2
    return empty


def fill(packing: Packing, row_length: int) -> float:
    """Share of row positions in use, 0..1; 0 where there is no row."""
    num_positions = (len(packing.row_at) - 1) * row_length
    return float(packing.length.sum(dtype=np.int64) / num_positions) if num_positions else 0.0


def write_packing(path: Path, packing: Packing) -> None:
    """Write the rows whole or not at all."""
    write_arrays(path, packing._asdict())


def open_packing(path: Path) -> Packing:
    """The rows written by `write_packing`, memory-mapped."""
    arrays = open_arrays(path)
    if set(arrays) != set(Packing._fields):
        raise BadInput(f"{path} does not hold packed rows; run `dvc repro encode` to write it again")
    return Packing(**arrays)
