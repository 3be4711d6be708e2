"""Which weights does a position go through? Its own modality's: gathered, so that a token costs what it costs without experts.

Text and each modality may have weights of their own (Mixture-of-Transformers, arXiv 2411.04996, Sec. 2.2; the number 0 is
text's, k is that of modality k - 1). A route takes the experts of one place in the network and a stream and sends each
position through one of them; where a place has a single expert, every route is a plain call.

Legend: B rows, L positions, D width, R = B * L.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from model.regroup import inverse, regroup

# (experts of one place, [B, L, D]) -> [B, L, D']
Route = Callable[[Sequence[nn.Module] | nn.ModuleList, Tensor], Tensor]


def shared(experts: Sequence[nn.Module] | nn.ModuleList, x: Tensor) -> Tensor:
    """Every position through the only expert."""
    return experts[0](x)


def only(number: int) -> Route:
    """Every position through the same expert, because all are of one modality."""

    def route(experts: Sequence[nn.Module] | nn.ModuleList, x: Tensor) -> Tensor:
        return experts[number if len(experts) > 1 else 0](x)

    return route


def gathered(at: Sequence[Tensor], num_positions: int) -> Route:
    """Each position through its own. at: for each expert int64 [n], flattened positions; together all R, each once."""
    sizes = [len(part) for part in at]
    order = torch.cat(list(at))
    back = inverse(order, num_positions)

    def route(experts: Sequence[nn.Module] | nn.ModuleList, x: Tensor) -> Tensor:
        if len(experts) == 1:
            return experts[0](x)
        parts = regroup(x.flatten(0, 1), order, back).split(sizes)
        done = [expert(part) for expert, part in zip(cast(Sequence[nn.Module], experts), parts, strict=True)]
        return regroup(torch.cat(done), back, order).view(*x.shape[:2], -1)

    return route


def selected(kind: Tensor) -> Route:
    """Every position through every expert, and its own taken: for graphs, where sizes may not depend on values.

    kind: int64 [B, L], each position's expert.
    """

    def route(experts: Sequence[nn.Module] | nn.ModuleList, x: Tensor) -> Tensor:
        out = experts[0](x)
        for number in range(1, len(experts)):
            out = torch.where((kind == number).unsqueeze(-1), experts[number](x), out)
        return out

    return route


def route_of_batch(patch_at: Sequence[Tensor], num_positions: int) -> Route:
    """The route of a packed batch. patch_at: for each modality int64 [P], its positions among the num_positions."""
    is_text = torch.ones(num_positions, dtype=torch.int8, device=patch_at[0].device)
    for part in patch_at:
        is_text[part] = 0
    # A sort, because the number of text positions is known and asking the device for it would wait.
    num_text = num_positions - sum(len(part) for part in patch_at)
    text_at = is_text.argsort(descending=True, stable=True)[:num_text]
    return gathered([text_at, *patch_at], num_positions)


def route_of_step(kind: Tensor, num_experts: int) -> Route:
    """The route of a generation step. kind: int64 [B, S], 0 for text and k for modality k - 1."""
    flat = kind.flatten()
    at = [(flat == number).nonzero().squeeze(1) for number in range(num_experts)]
    used = [number for number, part in enumerate(at) if len(part)]
    return only(used[0]) if len(used) == 1 else gathered(at, len(flat))
