"""How surprising is the text? Cross-entropy of predicted tokens, a few at a time, so that no table of all logits exists.

Legend: N predicted tokens, D width, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

# Logits at once, in numbers: 128 MiB of float32. Fewer tokens than that fit one pass and nothing is computed twice.
MAX_LOGITS = 2**25


class TokenLoss(NamedTuple):
    """cross_entropy: float32 [N], nats. log_normaliser: float32 [N], log of the softmax's sum, which z-loss keeps near 0."""

    cross_entropy: Tensor
    log_normaliser: Tensor


def token_loss(hidden: Tensor, head: Tensor, target: Tensor, *, max_logits: int = MAX_LOGITS) -> TokenLoss:
    """Losses of predicting `target` from `hidden` by the head's weights.

    hidden: [N, D]. head: [V, D]. target: int64 [N]. max_logits: of one piece; the backward pass computes each piece again.
    """
    num_tokens = max(1, max_logits // head.shape[0])
    if len(target) <= num_tokens:
        return TokenLoss(*_losses(hidden, head, target))
    pieces = [
        checkpoint(_losses, part, head, wanted, use_reentrant=False)
        for part, wanted in zip(hidden.split(num_tokens), target.split(num_tokens), strict=True)
    ]
    return TokenLoss(*(torch.cat(parts) for parts in zip(*pieces, strict=True)))  # type: ignore[arg-type]


def _losses(hidden: Tensor, head: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    logits, at = F.linear(hidden, head), target.unsqueeze(1)
    # From the softmax's logarithm, whose gradient is one pass over the logits; that of their sum's logarithm is many.
    log_probability = F.log_softmax(logits, -1, dtype=torch.float32).gather(1, at).squeeze(1)
    return -log_probability, logits.gather(1, at).squeeze(1).float() - log_probability
