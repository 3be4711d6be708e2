"""The layout of documents in a batch's rows: one behind the other, each position with the interval that it sees.

No position sees another document: what it sees is one interval of its row, [kv_start, kv_end]. Whoever feeds the model lays its
rows out here: training's loader, the evaluation, the benchmarks.

Legend: B rows, L row length, D documents in the batch, T stored ids of all of them, M images, n patches an image,
P = M * n patches, W numbers in a patch, N predicted tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.batch import Batch, Latents


class RowForm(NamedTuple):
    """What all rows have in common."""

    length: int
    """Positions of a row."""
    patches_per_image: int
    boi: int
    """The id of begin-of-image, behind which the image's patches stand."""
    pad: int
    """The id of unused positions."""


class Layout(NamedTuple):
    """Rows of a batch, as model.batch.Batch describes them, and as numpy arrays."""

    input_ids: np.ndarray
    """int64 [B, L]."""
    position_ids: np.ndarray
    """int64 [B, L]."""
    kv_start: np.ndarray
    """int32 [B, L]."""
    kv_end: np.ndarray
    """int32 [B, L]."""
    patch_positions: np.ndarray
    """int64 [P]."""
    loss_positions: np.ndarray
    """int64 [N]."""
    labels: np.ndarray
    """int64 [N]."""
    after_image: np.ndarray
    """bool [N]."""

    def batch(
        self,
        patches: Tensor,
        grid: tuple[int, int],
        *,
        sample_index: Tensor | None = None,
        time_limit: Tensor | None = None,
    ) -> Batch:
        """The rows with the images' patches [P, W] in their places; shares memory with the arrays.

        grid: patches down and across an image. sample_index: int64 [M], which noise each gets; None counts them from 0.
        time_limit: float32 [M], the largest noise level of each; None is 1.
        """
        patches_per_image = grid[0] * grid[1]
        num_images = len(patches) // patches_per_image if patches_per_image else 0
        images = Latents(
            patches=patches,
            patch_positions=torch.from_numpy(self.patch_positions),
            latent_index=torch.arange(num_images).repeat_interleave(patches_per_image),
            sample_index=torch.arange(num_images) if sample_index is None else sample_index,
            time_limit=torch.ones(num_images) if time_limit is None else time_limit,
            grids=(grid,) * num_images,
        )
        return Batch(
            input_ids=torch.from_numpy(self.input_ids),
            position_ids=torch.from_numpy(self.position_ids),
            kv_start=torch.from_numpy(self.kv_start),
            kv_end=torch.from_numpy(self.kv_end),
            latents=(images,),
            loss_positions=torch.from_numpy(self.loss_positions),
            labels=torch.from_numpy(self.labels),
            after_image=torch.from_numpy(self.after_image),
        )


def without_text(batch: Batch) -> Batch:
    """The same rows where no token is predicted, for errors of images alone: a large vocabulary's head is much work."""
    return batch._replace(loss_positions=batch.loss_positions[:0], labels=batch.labels[:0], after_image=batch.after_image[:0])


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
    patch_positions = (token_at[boi_at][:, None] + offset).ravel()

    # Filled in through flat views. A text position needs no kv_end: an empty row's positions see up to themselves already.
    rows = _empty_rows(form, num_rows)
    input_ids, position_ids, kv_start, kv_end = (part.reshape(-1) for part in rows)
    input_ids[token_at] = tokens
    position_ids[token_at] = in_document
    position_ids[patch_positions] = (in_document[boi_at][:, None] + offset).ravel()
    # Intervals are columns of their row, where `start` and `token_at` count through all rows.
    kv_start[token_at] = start[document] % form.length
    boi_column = token_at[boi_at] % form.length
    seen_from = np.where(hidden_captions, boi_column, start[document[boi_at]] % form.length)
    # The begin-of-image must not see the caption either: the patches see the begin-of-image.
    kv_start[token_at[boi_at]] = seen_from
    kv_start[patch_positions] = np.repeat(seen_from, form.patches_per_image)
    kv_end[patch_positions] = np.repeat(boi_column + form.patches_per_image, form.patches_per_image)
    # The next stored id stands at the next position unless patches lie between: no text is predicted after a
    # begin-of-image (paper, Sec. 3) or after the last token of a document.
    predicts = np.flatnonzero(~is_boi[:-1] & (document[:-1] == document[1:]))
    # That a document ends behind an image, or that another image comes, is no text about it.
    is_last = np.append(document[1:] != document[:-1], True)
    no_text = np.append(False, is_boi[:-1])[predicts] & (is_last | is_boi)[predicts + 1]
    after_image = (in_document > in_stream)[predicts] & ~no_text
    return Layout(*rows, patch_positions, token_at[predicts], tokens[predicts + 1], after_image)


def lay_out_streams(form: RowForm, streams: Sequence[np.ndarray], stream_row: np.ndarray) -> Layout:
    """Whole documents, those of a row one behind the other from its start; no caption is hidden.

    streams: the stored ids of each document. stream_row: int64 [D], the row of each, ascending from 0 without a gap.
    """
    tokens = np.concatenate(streams)
    document_at = np.cumsum([0, *map(len, streams)])
    return lay_out(
        form,
        tokens,
        document_at,
        places(form, tokens, document_at, stream_row),
        hidden_captions=np.zeros(np.count_nonzero(tokens == form.boi), np.bool_),
        num_rows=int(stream_row[-1]) + 1,
    )


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
    """The first four fields of a Layout, unused: each position sees itself alone, as a fully masked row has no softmax."""
    own = np.tile(np.arange(form.length, dtype=np.int32), (num_rows, 1))
    shape = (num_rows, form.length)
    return np.full(shape, form.pad, np.int64), np.zeros(shape, np.int64), own.copy(), own
