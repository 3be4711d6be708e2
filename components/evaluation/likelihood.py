"""Nats that the model needs for the text of single documents.

Images stand in them clean, at time 0, as generation leaves them.

Legend: D documents, B rows of a batch, L row length, N predicted tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from components.evaluation.held_out import Stored
from components.evaluation.layout import in_groups, rows_of
from model.transfusion import Transfusion


class TextNats(NamedTuple):
    """Of the text of some documents."""

    total: float
    by_document: np.ndarray
    """float64 [D], summed document by document, and so in another order than `total`."""


@torch.inference_mode()
def text_nats(model: Transfusion, stored: Sequence[Stored], *, max_positions: int, after_image: bool = False) -> TextNats:
    """Nats of every token that is predicted, the document's end among them.

    max_positions: padded row positions of one forward pass. after_image: of the texts behind an image alone, each with the end
    of its document.
    """
    device = model.embedding.weight.device
    total, by_document = 0.0, np.zeros(len(stored))
    for group in in_groups(stored, model.config, max_positions):
        batch = rows_of([stored[index] for index in group], model.config)
        row = batch.loss_positions.numpy() // batch.input_ids.shape[1]
        counted = batch.after_image if after_image else torch.ones_like(batch.after_image)
        (images,), time = batch.latents, torch.zeros(len(batch.latents[0].grids), device=device)
        nats = model(batch.to(device), [images.patches.to(device)], [time]).text.cross_entropy.cpu() * counted
        total += nats.sum().item()
        by_document[group] = np.bincount(row, nats.double().numpy(), minlength=len(group))
    return TextNats(total, by_document)
