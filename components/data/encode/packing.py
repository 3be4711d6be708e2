"""Which documents share a row? Rows filled best, computed once; a document is one item, so no caption is parted from its image.

Legend: E entries, each a document in a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from components.data.encode.row_fill import RowKind, row_kinds
from components.data.shards import open_arrays, write_arrays
from core.errors import BadInput

# The file of a split's rows, beside its shards.
PACKING = "packing.safetensors"


class Packing(NamedTuple):
    """Documents of one split in rows; a document may stand in several rows, or in none.

    row_at: int64 [rows + 1], where each row begins in the entries. document: int64 [E], which document.
    start, length: int32 [E], the interval of the row's positions that it has: start, start + 1, ..., start + length - 1.
    """

    row_at: np.ndarray
    document: np.ndarray
    start: np.ndarray
    length: np.ndarray


def pack(lengths: np.ndarray, row_length: int, copies: np.ndarray | None = None) -> Packing:
    """Put documents of `lengths` positions into rows of `row_length`, the fullest rows that were found (row_fill.py).

    copies: int64 [documents], how many times each stands in the rows, never twice in one; None is once. Equal input gives
    equal rows. A document longer than a row is an error of the caller.
    """
    assert len(lengths) == 0 or lengths.max() <= row_length, "a document longer than a row"
    if copies is not None:
        # Round by round: copies, being of one length, would else stand side by side, and a step would see half the documents.
        rounds = [np.flatnonzero(copies > number) for number in range(max(1, copies.max(initial=0)))]
        return _joined([_of_documents(chosen, pack(lengths[chosen], row_length)) for chosen in rounds])
    # A small type is sorted in one pass over the values.
    kind = np.uint16 if row_length < 2**16 else np.int64
    longest_first = np.argsort((row_length - lengths).astype(kind), kind="stable")
    kinds = row_kinds(lengths, row_length)
    number, entry = _entries(kinds)
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


def _entries(kinds: list[RowKind]) -> tuple[np.ndarray, np.ndarray]:
    """Documents in each row, int64 [rows]; and where in the rows the documents stand, taken the longest first, int64 [E].

    Of documents of one length the first go to the first kind of row that wants this length, row after row.
    """
    of_kind = np.repeat(np.arange(len(kinds)), [len(kind.lengths) for kind in kinds])
    repeats = np.array([kind.repeats for kind in kinds], np.int64)
    length = np.array([length for kind in kinds for length, _ in kind.lengths], np.int64)
    need = np.array([need for kind in kinds for _, need in kind.lengths], np.int64)
    size = np.bincount(of_kind, need, minlength=len(kinds)).astype(np.int64)
    kind_at = np.cumsum(repeats * size) - repeats * size
    # Where a length's documents begin in each row of its kind.
    column = np.cumsum(need) - need - (np.cumsum(size) - size)[of_kind]
    in_order = np.argsort(-length, kind="stable")
    each = np.repeat(in_order, (need * repeats[of_kind])[in_order])
    taken = (need * repeats[of_kind])[in_order]
    row, place = np.divmod(np.arange(len(each)) - np.repeat(np.cumsum(taken) - taken, taken), need[each])
    return np.repeat(size, repeats), kind_at[of_kind[each]] + row * size[of_kind[each]] + column[each] + place


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
