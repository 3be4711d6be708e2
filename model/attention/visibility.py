"""Who sees whom: one interval [kv_start, kv_end] per position, and the masks that are made of it.

Transfusion (arXiv 2408.11039, Sec. 3.1): causal over the sequence, bidirectional among the patches of one image. In a packed
row both are one contiguous interval, read alike by training, cache and exported graph: `kv_start` is the document's start;
`kv_end` is the position itself for text, and the last patch of its image for a patch.

Legend: N documents or rows, S queries, T keys.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

# What to add to scores, 0 where seen and -inf where not, in the precision of the scores. A function of the precision, because
# masks are made once a batch, and autocast settles the precision later, inside the first layer.
Bias = Callable[[torch.dtype], Tensor]


def visible(kv_start: Tensor, kv_end: Tensor, num_keys: int) -> Tensor:
    """bool [N, S, T]: whether each query sees each of the num_keys keys.

    kv_start, kv_end: integer [N, S], the ends of each query's interval, both included.
    """
    key = torch.arange(num_keys, device=kv_start.device)
    return (key >= kv_start.unsqueeze(-1)) & (key <= kv_end.unsqueeze(-1))


def as_bias(mask: Tensor) -> Bias:
    """bool -> the bias of the same shape, made once for each precision that asks for it, and not once a layer."""

    @functools.cache
    def bias(dtype: torch.dtype) -> Tensor:
        return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, float("-inf"))

    return bias
