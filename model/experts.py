"""Weights of their own for text and each modality: every position is gathered to its expert, and costs one expert's work.

Mixture-of-Transformers, arXiv 2411.04996, Sec. 2.2; the number 0 is text's, k is that of modality k - 1. A route takes the
experts of one place in the network and the hidden states, and sends each position through one of them; where a place has a
single expert, every route is a plain call.

Legend: B rows, L positions, D hidden size, R = B * L.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from model.permute import inverse_permutation, permute

# [..., D] -> [..., D'], each position by itself: a module, or a method of one.
Expert = Callable[[Tensor], Tensor]
# (experts of one place, [B, L, D]) -> [B, L, D']
Route = Callable[[Sequence[Expert], Tensor], Tensor]


def shared(experts: Sequence[Expert], x: Tensor) -> Tensor:
    """Every position through the only expert."""
    return experts[0](x)


def only(number: int) -> Route:
    """Every position through the same expert, because all are of one modality."""
    return lambda experts, x: experts[number if len(experts) > 1 else 0](x)


def gathered(positions: Sequence[Tensor], num_positions: int) -> Route:
    """Each position through its own. positions: for each expert int64 [n], flattened; together all R, each once."""
    sizes = [len(part) for part in positions]
    order = torch.cat(list(positions))
    inverse = inverse_permutation(order, num_positions)

    def route(experts: Sequence[Expert], x: Tensor) -> Tensor:
        if len(experts) == 1:
            return experts[0](x)
        parts = permute(x.flatten(0, 1), order, inverse).split(sizes)
        done = [expert(part) for expert, part in zip(experts, parts, strict=True)]
        return permute(torch.cat(done), inverse, order).view(*x.shape[:2], -1)

    return route


def selected(token_type_ids: Tensor) -> Route:
    """Every position through every expert, and its own taken: for graphs, where sizes may not depend on values.

    token_type_ids: int64 [B, L], each position's expert.
    """

    def route(experts: Sequence[Expert], x: Tensor) -> Tensor:
        out = experts[0](x)
        for number in range(1, len(experts)):
            out = torch.where((token_type_ids == number).unsqueeze(-1), experts[number](x), out)
        return out

    return route


def route_of_batch(patch_positions: Sequence[Tensor], num_positions: int) -> Route:
    """The route of a packed batch. patch_positions: for each modality int64 [P], its positions among the num_positions."""
    is_text = torch.ones(num_positions, dtype=torch.int8, device=patch_positions[0].device)
    for part in patch_positions:
        is_text.index_fill_(0, part, 0)
    # A sort, because the number of text positions is known and asking the device for it would wait.
    num_text = num_positions - sum(len(part) for part in patch_positions)
    text_positions = is_text.argsort(descending=True, stable=True)[:num_text]
    return gathered([text_positions, *patch_positions], num_positions)


def route_of_step(token_type_ids: Tensor, num_experts: int) -> Route:
    """The route of a generation step. token_type_ids: int64 [B, S], 0 for text and k for modality k - 1."""
    flat = token_type_ids.flatten()
    positions = [(flat == number).nonzero().squeeze(1) for number in range(num_experts)]
    used = [number for number, part in enumerate(positions) if len(part)]
    return only(used[0]) if len(used) == 1 else gathered(positions, len(flat))
