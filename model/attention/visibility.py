"""What may a position attend to? One interval [first, last] per position, read alike by training, cache and exported graph.

Transfusion (arXiv 2408.11039, Sec. 3.1): causal over the sequence, bidirectional among the patches of one image. In a packed
row both are one contiguous interval: `first` is the document's start; `last` is the position itself for text, and the last
patch of its image for a patch.

Legend: B rows, Q queries, K keys.
"""

from __future__ import annotations

import torch
from torch import Tensor


def visible(first: Tensor, last: Tensor, num_keys: int) -> Tensor:
    """bool [B, Q, K]: whether each query sees each key.

    first, last: integer [B, Q], the ends of each query's interval, both included.
    """
    key = torch.arange(num_keys, device=first.device)
    return (key >= first.unsqueeze(-1)) & (key <= last.unsqueeze(-1))


def as_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """bool -> what to add to the scores, of the same shape: 0 where seen and -inf where not."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, float("-inf"))
