"""A benchmark's documents as a Batch: packed into rows by the project's packer, laid out as training lays them out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.rows import Document, batch_of, num_positions
from components.data.encode.packing import pack
from model.batch import Batch
from model.config import ModelConfig


def packed_batch(documents: Sequence[Document], config: ModelConfig, row_length: int) -> Batch:
    """A batch of all documents, packed into rows of row_length."""
    packed = pack(np.array([num_positions(document) for document in documents]), row_length)
    rows = [[documents[index] for index in row] for row in np.split(packed.document, packed.row_at[1:-1])]
    return batch_of(rows, config, row_length)
