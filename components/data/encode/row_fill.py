"""Which lengths share a row, so that rows are full? The longest waiting and the best of the others, found by subset sums.

Rows of one kind are found together: the same combination of lengths is used while documents of these lengths last, so that
the work grows with the number of different lengths, not of documents. Best-fit-decreasing, which packs sequences elsewhere
(Krell et al., arXiv 2107.02027), leaves 2 to 3% empty where most documents are captions of a tenth of a row.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import NamedTuple

import numpy as np

# Lengths that one search looks at: the longest that fit, and the shortest, which close what gap the long ones leave. Rows of
# up to 256 positions have no more different lengths, so that there the best choice is found; above, nothing was seen to gain.
LONGEST_LOOKED_AT, SHORTEST_LOOKED_AT = 192, 64


class RowKind(NamedTuple):
    """repeats: how many such rows. lengths: (length, how many documents of it) each, in their order in the row."""

    repeats: int
    lengths: tuple[tuple[int, int], ...]


def row_kinds(lengths: np.ndarray, row_length: int) -> list[RowKind]:
    """Rows for documents of `lengths`, int64 [documents], each 1..row_length; each row takes the longest document left."""
    number = np.bincount(lengths, minlength=1)
    waiting = np.flatnonzero(number).tolist()
    counts = dict(zip(waiting, number[waiting].tolist(), strict=True))
    kinds: list[RowKind] = []
    while waiting:
        chosen = _best_row(waiting, counts, row_length)
        repeats = min([counts[length] // need for length, need in chosen])
        kinds.append(RowKind(repeats, chosen))
        for length, need in chosen:
            counts[length] -= repeats * need
            if not counts[length]:
                del waiting[bisect_left(waiting, length)]
    return kinds


def _best_row(waiting: list[int], counts: dict[int, int], row_length: int) -> tuple[tuple[int, int], ...]:
    """The longest length waiting, and of the others those that leave the least of a row empty.

    waiting: lengths, ascending. How many positions can be left empty are the bits of one integer.
    """
    longest = waiting[-1]
    capacity = row_length - longest
    fitting = bisect_right(waiting, capacity)
    if not fitting:
        return ((longest, 1),)
    empty, steps = 1 << capacity, []
    for length in _looked_at(waiting, fitting):
        steps.append((length, empty))
        number = counts[length] - (length == longest)
        empty = empty | empty >> length if number == 1 else _with_copies(empty, length, min(number, capacity // length))
        if empty & 1:
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


def _with_copies(empty: int, length: int, number: int) -> int:
    """What can be left empty with up to `number` documents of `length` more: 1, 2, 4, ... of them and the rest at a time."""
    at_once = 1
    while number > 0:
        at_once = min(at_once, number)
        empty |= empty >> length * at_once
        number -= at_once
        at_once *= 2
    return empty
