"""Which documents share a row, and what does a packed row look like? Rows filled best, computed once, and their layout.

A document is one item, so an image is never parted from its caption; no position sees another document: what it sees is
one interval of its row, [first, last].

Legend: B rows, L row length, D documents in the batch, T stored ids of all of them, M images, n patches an image,
P = M * n patches, N predicted tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from components.data.shards import open_arrays, write_arrays
from components.runtime.failure import BadInput


class Packing(NamedTuple):
    """Documents of one split in rows. row_at: int64 [rows + 1], where each begins in `document`, int64 [documents]."""

    row_at: np.ndarray
    document: np.ndarray


class Layout(NamedTuple):
    """Rows of a batch, as model.transfusion.Batch describes them, and as numpy arrays.

    ids, position: int64 [B, L]. first, last: int32 [B, L]. patch_at: int64 [P]. predict_at, target: int64 [N].
    after_image: bool [N].
    """

    ids: np.ndarray
    position: np.ndarray
    first: np.ndarray
    last: np.ndarray
    patch_at: np.ndarray
    predict_at: np.ndarray
    target: np.ndarray
    after_image: np.ndarray


def pack(lengths: np.ndarray, row_length: int) -> Packing:
    """Put documents of `lengths` positions into rows of `row_length`.

    Each row begins with the longest document left and takes those of the others that fill it best, found exactly; the
    same combination of lengths is used while documents of these lengths last, so that the work grows with the number
    of different lengths, not of documents. Best-fit-decreasing leaves 2 to 3% empty where most documents are captions.
    Equal input gives equal rows. A document longer than a row is an error of the caller.
    """
    assert len(lengths) == 0 or lengths.max() <= row_length, "a document longer than a row"
    order = np.argsort(-lengths, kind="stable")
    distinct, first, number = np.unique(-lengths[order], return_index=True, return_counts=True)
    waiting = {
        -length: order[at : at + count]
        for length, at, count in zip(distinct.tolist(), first.tolist(), number.tolist(), strict=True)
    }
    rows: list[list[int]] = []
    while waiting:
        needs = _best_row({length: len(documents) for length, documents in waiting.items()}, row_length)
        repeats = min(len(waiting[length]) // need for length, need in needs.items())
        columns = [waiting[length][: repeats * need].reshape(repeats, need) for length, need in needs.items()]
        rows += np.concatenate(columns, axis=1).tolist()
        for length, need in needs.items():
            waiting[length] = waiting[length][repeats * need :]
            if len(waiting[length]) == 0:
                del waiting[length]
    row_at = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return Packing(row_at, np.array([document for row in rows for document in row], np.int64))


def _best_row(available: dict[int, int], row_length: int) -> dict[int, int]:
    """Length -> how many of it: the longest available, and the others that leave the least of a row empty.

    available: length -> number of documents, the longest first. Sums that can be reached are the bits of one integer.
    """
    longest = next(iter(available))
    capacity = row_length - longest
    reached, steps = 1, []
    for length, number in available.items():
        for _ in range(min(number - (length == longest), capacity // length)):
            steps.append((length, reached))
            reached |= reached << length & (2 << capacity) - 1
        if reached >> capacity:
            break
    chosen, left = {longest: 1}, reached.bit_length() - 1
    # Backwards, a document is taken only where the sum was out of reach without it: short ones are kept for later rows.
    for length, reached_before in reversed(steps):
        if not reached_before >> left & 1:
            chosen[length] = chosen.get(length, 0) + 1
            left -= length
    return chosen


def fill(packing: Packing, lengths: np.ndarray, row_length: int) -> float:
    """Share of row positions in use, 0..1; 0 where there is no row."""
    num_positions = (len(packing.row_at) - 1) * row_length
    return float(lengths.sum() / num_positions) if num_positions else 0.0


def write_packing(path: Path, packing: Packing) -> None:
    """Write the rows whole or not at all."""
    write_arrays(path, packing._asdict())


def open_packing(path: Path) -> Packing:
    """The rows written by `write_packing`, memory-mapped."""
    arrays = open_arrays(path)
    if set(arrays) != set(Packing._fields):
        raise BadInput(f"{path} does not hold packed rows; run `dvc repro encode` to write it again")
    return Packing(**arrays)


def lay_out(
    tokens: np.ndarray,
    document_at: np.ndarray,
    document_row: np.ndarray,
    *,
    hidden_captions: np.ndarray,
    num_rows: int,
    row_length: int,
    patches_per_image: int,
    boi: int,
    pad: int,
) -> Layout:
    """Lay documents out in rows, one after the other in each.

    tokens: [T] stored ids of the documents in order. document_at: [D + 1], where each begins in tokens.
    document_row: [D], the row of each, ascending. hidden_captions: bool [M], images that must not see their caption.
    """
    tokens = tokens.astype(np.int64)
    document = np.repeat(np.arange(len(document_row)), np.diff(document_at))
    is_boi = tokens == boi
    start = _document_starts(is_boi, document_at, document_row, patches_per_image, row_length)
    boi_at = np.flatnonzero(is_boi)
    patches_before = (np.cumsum(is_boi) - is_boi) * patches_per_image
    # Both counts run over the whole batch; a document's own begin at its first token.
    in_stream = np.arange(len(tokens)) - document_at[document]
    in_document = in_stream + patches_before - patches_before[document_at[document]]
    token_at = start[document] + in_document
    offset = np.arange(1, patches_per_image + 1)
    patch_at = (token_at[boi_at][:, None] + offset).ravel()

    rows = _empty_rows(num_rows, row_length, pad)
    ids, position, first, last = (part.reshape(-1) for part in rows)
    ids[token_at] = tokens
    position[token_at] = in_document
    position[patch_at] = (in_document[boi_at][:, None] + offset).ravel()
    first[token_at] = start[document] % row_length
    boi_column = token_at[boi_at] % row_length
    first_seen = np.where(hidden_captions, boi_column, start[document[boi_at]] % row_length)
    # The begin-of-image must not see the caption either: the patches see the begin-of-image.
    first[token_at[boi_at]] = first_seen
    first[patch_at] = np.repeat(first_seen, patches_per_image)
    last[patch_at] = np.repeat(boi_column + patches_per_image, patches_per_image)
    # The next stored id stands at the next position unless patches lie between: no text is predicted after a
    # begin-of-image (paper, Sec. 3) or after the last token of a document.
    predicts = np.flatnonzero(~is_boi[:-1] & (document[:-1] == document[1:]))
    return Layout(*rows, patch_at, token_at[predicts], tokens[predicts + 1], in_document[predicts] > in_stream[predicts])


def _document_starts(
    is_boi: np.ndarray, document_at: np.ndarray, document_row: np.ndarray, patches_per_image: int, row_length: int
) -> np.ndarray:
    """[D] where each document begins in the flattened rows."""
    bois = np.concatenate([[0], np.cumsum(is_boi)])[document_at]
    length = np.diff(document_at) + np.diff(bois) * patches_per_image
    ends = np.cumsum(length)
    before = ends - length
    # Documents of a row stand together: what lies before a document, less what lies before its row's first one.
    first_of_row = np.searchsorted(document_row, document_row)
    offset = before - before[first_of_row]
    assert (offset + length <= row_length).all(), "documents run over their row"
    return document_row * row_length + offset


def _empty_rows(num_rows: int, row_length: int, pad: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """ids, position, first, last of unused positions: each sees itself alone, as a fully masked row has no softmax."""
    own = np.tile(np.arange(row_length, dtype=np.int32), (num_rows, 1))
    shape = (num_rows, row_length)
    return np.full(shape, pad, np.int64), np.zeros(shape, np.int64), own.copy(), own
