"""How is a model compiled, for training or for generation on a CPU? In pieces, between what changes from batch to batch.

Attention, and the route of positions to experts, are closures over a batch: within a compiled region each would be looked at
anew, and masks that depend on the batch have gone wrong there silently (pytorch issue 186775). So each block is compiled in
two pieces, before and after attention (FlexAttention is compiled by itself, see flexible_attention.py). All blocks share the
two, so that compiling takes as long for 32 layers as for one. Shapes are those of the packed rows, [B, L], which never change.

In generation B and L change from pass to pass. The pieces treat every position alike, so there they are given all B * L as one
row, a single open size: sizes left open by themselves would be compiled anew wherever two happen to be equal.

Where positions go through experts of their own, the number that each takes changes with every batch. There the experts are
compiled, with sizes left open, and the gathers around them are not; an expert of one position or of none is compiled anew.

Legend: B rows, L positions, D width, H heads, K head width, N predicted tokens, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from model.experts import Route, shared
from model.token_loss import TokenLoss, token_loss
from model.transformer import Block, Rotation
from model.transfusion import Transfusion

# Logits of a piece, in numbers: large enough that the head's cast and the calls cost little, and 256 MiB of float32.
MAX_LOGITS = 2**26

# (hidden [N, D], head [V, D], target int64 [N]) -> cross-entropy and log of the softmax's sum, float32 [N] each
Losses = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def compile_for_training(model: Transfusion, *, backend: str = "inductor") -> None:
    """Compile the blocks and the text's loss of `model`, in place; names of weights and results stay as they are.

    Compilation happens at the first batch, and again for a batch with other B or L. Copies of the model are compiled as well;
    those made before are not. backend: of torch.compile.
    """
    before, after = (torch.compile(each, dynamic=False, backend=backend) for each in (Block.before, Block.after))
    # Bound methods, because they follow their owner into a copy, where a closure would go on with the old one's weights.
    for block in model.transformer.blocks:
        assert isinstance(block, Block)
        if len(block.attention) == 1:
            block.before = MethodType(_of_one_expert(before), block)
        if len(block.feed_forward) == 1:
            block.after = MethodType(_of_one_expert(after), block)
        for place in (block.attention, block.feed_forward):
            if len(place) > 1:
                _compile_each(place, backend)
    model.text_loss = MethodType(_text_loss_with(torch.compile(_losses, backend=backend)), model)


def compile_for_generation(model: Transfusion) -> None:
    """Compile the blocks of `model` for steps of any size, in place; seconds at the first, and again for a single position.

    Parts that hold several experts stay as they are.
    """
    for block in model.transformer.blocks:
        assert isinstance(block, Block)
        if len(block.attention) == 1:
            block.before = MethodType(_before_in_one_row, block)
        if len(block.feed_forward) == 1:
            block.after = MethodType(_after_in_one_row, block)


def _before_in_one_row(block: Block, x: Tensor, turn: Rotation, route: Route) -> tuple[Tensor, Tensor, Tensor]:
    turn = Rotation(*(_in_one_row(part.expand(len(x), -1, -1, -1), 2) for part in turn))
    parts = _compiled_step(_step_before)(block, _in_one_row(x, 1), turn)
    # [1, H, B * L, K] each.
    query, key, value = (part[0].unflatten(1, x.shape[:2]).transpose(0, 1) for part in parts)
    return query, key, value


def _after_in_one_row(block: Block, x: Tensor, mixed: Tensor, route: Route) -> Tensor:
    mixed = _with_open_size(_in_one_row(mixed.transpose(1, 2), 1).transpose(1, 2), 2)
    return _compiled_step(_step_after)(block, _in_one_row(x, 1), mixed).view(x.shape)


# Functions of their own, because torch counts what it compiles by function, and gives up after a few.
def _step_before(block: Block, x: Tensor, turn: Rotation) -> tuple[Tensor, Tensor, Tensor]:
    return Block.before(block, x, turn, shared)


def _step_after(block: Block, x: Tensor, mixed: Tensor) -> Tensor:
    return Block.after(block, x, mixed, shared)


def _in_one_row(x: Tensor, at: int) -> Tensor:
    """The sizes B at 0 and L at `at` as one of 1 and one of B * L, the latter open. Those between them are 1."""
    return _with_open_size(x.reshape(1, *x.shape[1:at], -1, *x.shape[at + 1 :]).contiguous(), at)


def _with_open_size(x: Tensor, at: int) -> Tensor:
    """x, compiled for any size at `at` but 1."""
    if x.shape[at] > 1:
        torch._dynamo.maybe_mark_dynamic(x, at)
    return x


@functools.cache
def _compiled_step(method: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled once for all models, and not before it is needed."""
    return torch.compile(method)


def _of_one_expert(compiled: Callable[..., Any]) -> Callable[..., Any]:
    """A method of Block where all positions go the same way, whatever the batch's route is elsewhere."""

    def method(block: Block, x: Tensor, given: Any, route: Route) -> Any:
        return compiled(block, x, given, shared)

    return method


def _compile_each(experts: nn.ModuleList, backend: str) -> None:
    for expert in experts:
        expert.forward = MethodType(torch.compile(type(expert).forward, dynamic=True, backend=backend), expert)


def _text_loss_with(losses: Losses) -> Callable[..., TokenLoss]:
    """`Transfusion.text_loss`, compiled."""

    def text_loss(model: Transfusion, hidden: Tensor, target: Tensor) -> TokenLoss:
        return loss_by_pieces(losses, hidden, model.head.weight, target)

    return text_loss


def loss_by_pieces(losses: Losses, hidden: Tensor, head: Tensor, target: Tensor, *, max_logits: int = MAX_LOGITS) -> TokenLoss:
    """`token_loss` with `losses`, compiled for any number of tokens.

    hidden: [N, D]. head: [V, D]. target: int64 [N]. max_logits: of one piece; where there are several, the backward pass
    computes each again.
    """
    if not len(target):
        return token_loss(hidden, head, target)
    size = max(1, max_logits // head.shape[0])
    hiddens, targets = ([_with_open_size(part, 0) for part in whole.split(size)] for whole in (hidden, target))
    if len(targets) == 1:
        return TokenLoss(*losses(hiddens[0], head, targets[0]))
    pieces = [
        checkpoint(losses, some, head, wanted, use_reentrant=False, preserve_rng_state=False)
        for some, wanted in zip(hiddens, targets, strict=True)
    ]
    return TokenLoss(*(torch.cat(parts) for parts in zip(*pieces, strict=True)))  # type: ignore[arg-type]


def _losses(hidden: Tensor, head: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    logits = F.linear(hidden, head).float()
    log_normaliser = logits.logsumexp(-1)
    # A mask and not a gather: its backward pass is part of the softmax's, where a gather's fills a table of its own.
    wanted = torch.arange(logits.shape[1], device=logits.device) == target.unsqueeze(1)
    return log_normaliser - torch.where(wanted, logits, 0.0).sum(-1), log_normaliser
