"""What does a packed row look like? Documents laid out one behind the other, each position with the interval that it sees.

No position sees another document: what it sees is one interval of its row, [first, last].

Legend: B rows, L row length, D documents in the batch, T stored ids of all of them, M images, n patches an image,
P = M * n patches, N predicted tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from model.batch import Batch, Latents


class RowForm(NamedTuple):
    """What all rows have in common. length: positions. boi, pad: ids of begin-of-image and of unused positions."""

    length: int
    patches_per_image: int
    boi: int
    pad: int


class Layout(NamedTuple):
    """Rows of a batch, as model.batch.Batch describes them, and as numpy arrays.

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

    def batch(self, images: Latents) -> Batch:
        """The rows with what stands at their patches; shares memory with the arrays."""
        return Batch(
            ids=torch.from_numpy(self.ids),
            position=torch.from_numpy(self.position),
            first=torch.from_numpy(self.first),
            last=torch.from_numpy(self.last),
            latents=(images,),
            predict_at=torch.from_numpy(self.predict_at),
            target=torch.from_numpy(self.target),
            after_image=torch.from_numpy(self.after_image),
        )


def lay_out(
    form: RowForm,
    tokens: np.ndarray,
    document_at: np.ndarray,
    start: np.ndarray,
    *,
    hidden_captions: np.ndarray,
    num_rows: int,
) -> Layout:
    """Lay documents out in rows.

    tokens: [T] stored ids of the documents in order. document_at: [D + 1], where each begins in tokens.
    start: int64 [D], where each begins in the flattened rows. hidden_captions: bool [M], images that must not see their
    caption.
    """
    tokens = tokens.astype(np.int64)
    document = np.repeat(np.arange(len(start)), np.diff(document_at))
    is_boi = tokens == form.boi
    boi_at = np.flatnonzero(is_boi)
    patches_before = (np.cumsum(is_boi) - is_boi) * form.patches_per_image
    # Both counts run over the whole batch; a document's own begin at its first token.
    in_stream = np.arange(len(tokens)) - document_at[document]
    in_document = in_stream + patches_before - patches_before[document_at[document]]
    token_at = start[document] + in_document
    offset = np.arange(1, form.patches_per_image + 1)
    patch_at = (token_at[boi_at][:, None] + offset).ravel()

    rows = _empty_rows(form, num_rows)
    ids, position, first, last = (part.reshape(-1) for part in rows)
    ids[token_at] = tokens
    position[token_at] = in_document
    position[patch_at] = (in_document[boi_at][:, None] + offset).ravel()
    first[token_at] = start[document] % form.length
    boi_column = token_at[boi_at] % form.length
    first_seen = np.where(hidden_captions, boi_column, start[document[boi_at]] % form.length)
    # The begin-of-image must not see the caption either: the patches see the begin-of-image.
    first[token_at[boi_at]] = first_seen
    first[patch_at] = np.repeat(first_seen, form.patches_per_image)
    last[patch_at] = np.repeat(boi_column + form.patches_per_image, form.patches_per_image)
    # The next stored id stands at the next position unless patches lie between: no text is predicted after a
    # begin-of-image (paper, Sec. 3) or after the last token of a document.
    predicts = np.flatnonzero(~is_boi[:-1] & (document[:-1] == document[1:]))
    return Layout(*rows, patch_at, token_at[predicts], tokens[predicts + 1], in_document[predicts] > in_stream[predicts])


def places(form: RowForm, tokens: np.ndarray, document_at: np.ndarray, document_row: np.ndarray) -> np.ndarray:
    """int64 [D]: where documents begin in the flattened rows when those of a row stand one behind the other.

    tokens, document_at: as `lay_out` has them. document_row: [D], the row of each, ascending.
    """
    bois = np.concatenate([[0], np.cumsum(tokens == form.boi)])[document_at]
    length = np.diff(document_at) + np.diff(bois) * form.patches_per_image
    ends = np.cumsum(length)
    before = ends - length
    # Documents of a row stand together: what lies before a document, less what lies before its row's first one.
    first_of_row = np.searchsorted(document_row, document_row)
    offset = before - before[first_of_row]
    assert (offset + length <= form.length).all(), "documents run over their row"
    return document_row * form.length + offset


def _empty_rows(form: RowForm, num_rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """ids, position, first, last of unused positions: each sees itself alone, as a fully masked row has no softmax."""
    own = np.tile(np.arange(form.length, dtype=np.int32), (num_rows, 1))
    shape = (num_rows, form.length)
    return np.full(shape, form.pad, np.int64), np.zeros(shape, np.int64), own.copy(), own
