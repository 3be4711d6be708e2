"""The choice of the next token: the likeliest, or a sample of the tempered, truncated distribution; many rows at once.

A sample takes one uniform number a row, made by the row's own generator: so the choice depends on the row alone, and on an
accelerator it costs one transfer of the chosen tokens, not of the logits.

Legend: R rows that want a token, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor


def choose(logits: Tensor, uniform: Tensor | None, *, temperature: float, top_p: float, min_p: float) -> Tensor:
    """int64 [R]: one token a row, where the logits are.

    logits: float [R, V]; -inf suppresses a token. uniform: float [R], in 0..1, 1 excluded; not read at temperature 0, which
    takes the likeliest token.
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    assert uniform is not None
    # Doubles, because single-precision sums over a large vocabulary drift by more than a rare token's probability.
    probability = torch.softmax(logits.double() / temperature, dim=-1)
    kept = torch.where(keep(probability, top_p=top_p, min_p=min_p), probability, 0.0).cumsum(dim=-1)
    wanted = uniform.to(kept).unsqueeze(1) * kept[:, -1:]
    # The first token whose running sum exceeds the uniform number; one of probability 0 never does. Of a model that diverged no
    # sum does, and the last token stands in, as the first one does where the likeliest is taken.
    return torch.searchsorted(kept, wanted, right=True).squeeze(1).clamp(max=logits.shape[1] - 1)


def keep(probability: Tensor, *, top_p: float, min_p: float) -> Tensor:
    """bool [R, V]: the tokens that may be chosen. probability: float [R, V], each row summing to 1.

    top_p: the fewest likeliest tokens that hold this share together (nucleus sampling, arXiv 1904.09751, Sec. 3.1).
    min_p: tokens at least this share as likely as the likeliest (arXiv 2407.01082, Sec. 3). Both: what each would keep.
    """
    kept = probability >= min_p * probability.amax(dim=-1, keepdim=True)
    if top_p < 1:
        ordered, order = probability.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(dim=-1) - ordered
        kept &= torch.zeros_like(kept).scatter(-1, order, before < top_p)
    return kept


def suppress(logits: Tensor, tokens: Tensor, suppressed: Tensor) -> Tensor:
    """The logits with -inf where a row may not choose a token. tokens: int64 [K]; suppressed: bool [R, K]."""
    weight = torch.zeros(suppressed.shape, dtype=logits.dtype).masked_fill_(suppressed, float("-inf"))
    return logits.index_add(1, tokens.to(logits.device), weight.to(logits.device))
