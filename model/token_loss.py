"""Cross-entropy of predicted tokens, some of them at a time, so that no table of all logits exists.

Legend: N predicted tokens, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

# Logits at once, in numbers: large enough that the head's cast and the calls cost little, and 256 MiB of float32. Fewer tokens
# than that fit one pass and nothing is computed twice.
MAX_LOGITS = 2**26
# On a GPU what memory there is decides: so much of it for all of a logit (in half precision, in float32, and both gradients),
# which is 32,768 tokens of as large a vocabulary on 80 GB.
MEMORY_SHARE, BYTES_PER_LOGIT = 0.2, 12

# (hidden [N, D], head [V, D], labels int64 [N]) -> cross-entropy and log of the softmax's sum, float32 [N] each
Losses = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


class TokenLoss(NamedTuple):
    """Losses of N predicted tokens."""

    cross_entropy: Tensor
    """float32 [N], nats."""
    log_normaliser: Tensor
    """float32 [N], log of the softmax's sum, which z-loss keeps near 0."""


def losses_of_logits(hidden: Tensor, head: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The losses, for torch as it runs line by line."""
    logits, at = F.linear(hidden, head), labels.unsqueeze(1)
    # From the softmax's logarithm, whose gradient is one pass over the logits; that of their sum's logarithm is many.
    log_probability = F.log_softmax(logits, -1, dtype=torch.float32).gather(1, at).squeeze(1)
    return -log_probability, logits.gather(1, at).squeeze(1).float() - log_probability


def losses_to_compile(hidden: Tensor, head: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The same, in the form that a compiler fuses best."""
    logits = F.linear(hidden, head).float()
    log_normaliser = logits.logsumexp(-1)
    # A mask and not a gather: its backward pass is part of the softmax's, where a gather's fills a table of its own.
    wanted = torch.arange(logits.shape[1], device=logits.device) == labels.unsqueeze(1)
    return log_normaliser - torch.where(wanted, logits, 0.0).sum(-1), log_normaliser


def token_loss(
    hidden: Tensor, head: Tensor, labels: Tensor, *, losses: Losses = losses_of_logits, max_logits: int = 0
) -> TokenLoss:
    """Losses of predicting `labels` from `hidden` by the head's weights.

    hidden: [N, D]. head: [V, D]. labels: int64 [N]. max_logits: of one piece, 0 for what the device has room for; where there
    are several pieces, the backward pass computes each again.
    """
    size = max(1, (max_logits or room_for_logits(head.device)) // head.shape[0])
    if len(labels) <= size:
        return TokenLoss(*losses(hidden, head, labels))
    pieces = [
        checkpoint(losses, some, head, wanted, use_reentrant=False, preserve_rng_state=False)
        for some, wanted in zip(hidden.split(size), labels.split(size), strict=True)
    ]
    return TokenLoss(*(torch.cat(parts) for parts in zip(*pieces, strict=True)))  # type: ignore[arg-type]


def room_for_logits(device: torch.device) -> int:
    """Logits at once, in numbers."""
    if device.type != "cuda":
        return MAX_LOGITS
    # Of all memory, because what is free changes from step to step, and asking for it takes time.
    memory = torch.cuda.get_device_properties(device).total_memory
    return max(MAX_LOGITS, int(MEMORY_SHARE * memory / BYTES_PER_LOGIT))
