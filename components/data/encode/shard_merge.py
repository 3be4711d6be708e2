"""How do the shards of many parts become few large ones? Neighbours joined up to a size, so that documents keep their order.

A file has a cost of its own wherever it goes (a copy, a digest, an entry in DVC's cache), and a part of documents may be small.

Legend: N documents, T stored token ids and M images of a shard.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from components.data.shards import Shard


def neighbours(sizes: Sequence[int], most: int) -> list[slice]:
    """Which neighbours to join: as many as stay within `most` together, and one alone where it is larger by itself."""
    groups: list[slice] = []
    start, total = 0, 0
    for index, size in enumerate(sizes):
        if index > start and total + size > most:
            groups.append(slice(start, index))
            start, total = index, 0
        total += size
    return [*groups, slice(start, len(sizes))] if sizes else []


def join(shards: Sequence[Shard]) -> Shard:
    """One shard of the documents of all, in order; all have variants, or none has."""
    whole = {
        name: np.concatenate([getattr(shard, name) for shard in shards])
        for name, value in zip(Shard._fields, shards[0], strict=True)
        if value is not None
    }
    num_documents = [len(shard.document_at) - 1 for shard in shards]
    num_tokens = [len(shard.ids) for shard in shards]
    whole["document_at"] = _chained([shard.document_at for shard in shards])
    whole["key_at"] = _chained([shard.key_at for shard in shards])
    whole["image_document"] = _shifted([shard.image_document for shard in shards], num_documents)
    whole["image_at"] = _shifted([shard.image_at for shard in shards], num_tokens)
    return Shard(**whole)


def _chained(bounds: Sequence[np.ndarray]) -> np.ndarray:
    """Bounds 0, ..., end of several arrays as those of the arrays one after the other."""
    return np.cumsum(np.concatenate([[0], *(np.diff(bound) for bound in bounds)]), dtype=np.int64)


def _shifted(indices: Sequence[np.ndarray], lengths: Sequence[int]) -> np.ndarray:
    """Indices into several arrays as indices into the arrays one after the other; the type stays."""
    before = np.cumsum([0, *lengths[:-1]])
    return np.concatenate([index + index.dtype.type(shift) for index, shift in zip(indices, before, strict=True)])
