"""Documents of text and images as a batch, by the layout that training uses.

Legend: n text ids, P patches, Y/X patches along the axes of an image, W numbers in a patch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from components.data.row_layout import RowForm, lay_out_streams
from model.batch import Batch
from model.config import ModelConfig

# Text as int64 [n], images as float32 [Y, X, W], all of one size.
Document = Sequence[Tensor]


def batch_of(rows: Sequence[Sequence[Document]], config: ModelConfig, row_length: int) -> Batch:
    """The documents of each row one behind the other, between the markers that training has them in."""
    documents = [document for row in rows for document in row]
    images = [part for document in documents for part in document if part.is_floating_point()]
    grid = (images[0].shape[0], images[0].shape[1]) if images else (0, 0)
    form = RowForm(row_length, math.prod(grid), boi=config.image.begin_token_id, pad=config.pad_token_id)
    row_at = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    layout = lay_out_streams(form, [stream(document, config).numpy() for document in documents], row_at)
    no_patches = torch.zeros(0, config.image.patch_dim)
    return layout.batch(torch.cat([no_patches, *(image.flatten(0, 1) for image in images)]), grid)


def stream(document: Document, config: ModelConfig) -> Tensor:
    """int64: the document's ids as they are stored, an image as its two markers."""
    image = torch.tensor([config.image.begin_token_id, config.image.end_token_id])
    parts = [image if part.is_floating_point() else part for part in document]
    return torch.cat([torch.tensor([config.bos_token_id]), *parts, torch.tensor([config.eos_token_id])])


def num_positions(document: Document) -> int:
    """Positions of a document in its row, markers included."""
    return 2 + sum(2 + part.shape[0] * part.shape[1] if part.is_floating_point() else len(part) for part in document)
