"""Compilation of a model in pieces, for training and for generation, between what changes from batch to batch.

Attention, and the route of positions to experts, are closures over a batch: within a compiled region each would be looked at
anew, and masks that depend on the batch have gone wrong there silently (pytorch issue 186775). So each block is compiled in
two pieces, before and after attention (FlexAttention is compiled by itself, see attention/flex.py). It would be a kernel of
its own in one region too, which would save two calls a layer and fuse nothing more. All blocks share the two, so that
compiling takes as long for 32 layers as for one. Shapes are those of the packed rows, [B, L], which never change.

In generation B and L change from pass to pass. The pieces treat every position alike, so there they are given all B * L as one
row, a single open size: sizes left open by themselves would be compiled anew wherever two happen to be equal.

Where positions go through experts of their own, the number that each takes changes with every batch. There the experts are
compiled, with sizes left open, and the gathers around them are not; an expert of one position or of none is compiled anew.

Legend: B rows, L positions, D hidden size, H heads, K head dim, N predicted tokens.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from model.experts import Route, shared
from model.token_loss import Losses, TokenLoss, losses_of_logits, losses_to_compile, token_loss
from model.transformer import Block, RotaryEmbedding
from model.transfusion import Transfusion


def compile_for_training(model: Transfusion, *, backend: str = "inductor") -> None:
    """Compile the blocks and the text's loss of `model`, in place; names of weights and results stay as they are.

    Compilation happens at the first batch, and again for a batch with other B or L. Copies of the model are compiled as well;
    those made before are not. backend: of torch.compile.
    """
    # Sizes are fixed, for packed rows are always [B, L], and kernels of fixed sizes are the fastest.
    qkv, output_mlp = (torch.compile(each, dynamic=False, backend=backend) for each in (Block.qkv, Block.output_mlp))
    # Bound methods, because they follow their owner into a copy, where a closure would go on with the old one's weights.
    for block in model.transformer.blocks:
        assert isinstance(block, Block)
        if len(block.attention) == 1:
            block.qkv = MethodType(_of_one_expert(qkv), block)
        else:
            _compile_each(block.attention, "project_in", backend)
        if len(block.feed_forward) == 1:
            block.output_mlp = MethodType(_of_one_expert(output_mlp), block)
        else:
            _compile_each(block.feed_forward, "forward", backend)
    model.text_loss = MethodType(_text_loss_with(compiled_losses(torch.compile(losses_to_compile, backend=backend))), model)


def compile_for_generation(model: Transfusion, *, backend: str = "inductor") -> None:
    """Compile the blocks of `model` for steps of any size, in place; seconds at the first, and again for a single position.

    Parts that hold several experts stay as they are. backend: of torch.compile.
    """
    for block in model.transformer.blocks:
        assert isinstance(block, Block)
        if len(block.attention) == 1:
            block.qkv = MethodType(functools.partial(_qkv_in_one_row, _compiled_step(_step_qkv, backend)), block)
        if len(block.feed_forward) == 1:
            compiled = _compiled_step(_step_output_mlp, backend)
            block.output_mlp = MethodType(functools.partial(_output_mlp_in_one_row, compiled), block)


def num_compiled() -> int:
    """Graphs that torch.compile has made in this process; of a training, none after its first steps."""
    # Nothing was compiled where nobody has loaded the compiler, which takes seconds.
    dynamo = sys.modules.get("torch._dynamo.utils")
    return dynamo.counters["stats"]["unique_graphs"] if dynamo else 0


def compiled_losses(losses: Losses) -> Losses:
    """Token losses by `losses`, compiled once for any number of tokens."""

    def of_any_number(hidden: Tensor, head: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if not len(labels):
            # A compiled size of 0 would be a graph of its own.
            return losses_of_logits(hidden, head, labels)
        return losses(_with_open_size(hidden, 0), head, _with_open_size(labels, 0))

    return of_any_number


def _qkv_in_one_row(
    compiled: Callable[..., Any], block: Block, x: Tensor, cos_sin: RotaryEmbedding, route: Route
) -> tuple[Tensor, Tensor, Tensor]:
    # Rows stand at different positions, and in one row each position brings its own angle.
    cos_sin = RotaryEmbedding(*(_in_one_row(part.expand(len(x), -1, -1, -1), 2) for part in cos_sin))
    parts = compiled(block, _in_one_row(x, 1), cos_sin)
    # [1, H, B * L, K] each.
    query, key, value = (part[0].unflatten(1, x.shape[:2]).transpose(0, 1) for part in parts)
    return query, key, value


def _output_mlp_in_one_row(compiled: Callable[..., Any], block: Block, x: Tensor, attn_output: Tensor, route: Route) -> Tensor:
    attn_output = _with_open_size(_in_one_row(attn_output.transpose(1, 2), 1).transpose(1, 2), 2)
    return compiled(block, _in_one_row(x, 1), attn_output).view(x.shape)


# Functions of their own, because torch counts what it compiles by function, and gives up after a few.
def _step_qkv(block: Block, x: Tensor, cos_sin: RotaryEmbedding) -> tuple[Tensor, Tensor, Tensor]:
    return Block.qkv(block, x, cos_sin, shared)


def _step_output_mlp(block: Block, x: Tensor, attn_output: Tensor) -> Tensor:
    return Block.output_mlp(block, x, attn_output, shared)


def _in_one_row(x: Tensor, at: int) -> Tensor:
    """The sizes B at 0 and L at `at` as one of 1 and one of B * L, the latter open. Those between them are 1."""
    return _with_open_size(x.reshape(1, *x.shape[1:at], -1, *x.shape[at + 1 :]).contiguous(), at)


def _with_open_size(x: Tensor, at: int) -> Tensor:
    """x, compiled for any size at `at` but 1."""
    if x.shape[at] > 1:
        torch._dynamo.maybe_mark_dynamic(x, at)
    return x


@functools.cache
def _compiled_step(method: Callable[..., Any], backend: str) -> Callable[..., Any]:
    """Compiled once for all models, and not before it is called."""
    return torch.compile(method, backend=backend)


def _of_one_expert(compiled: Callable[..., Any]) -> Callable[..., Any]:
    """A method of Block where all positions go the same way, whatever the batch's route is elsewhere."""

    def method(block: Block, x: Tensor, given: Any, route: Route) -> Any:
        return compiled(block, x, given, shared)

    return method


def _compile_each(experts: nn.ModuleList, method: str, backend: str) -> None:
    # Here sizes are open: which positions are an expert's, and so how many, is the batch's affair.
    for expert in experts:
        compiled = torch.compile(getattr(type(expert), method), dynamic=True, backend=backend)
        setattr(expert, method, MethodType(compiled, expert))


def _text_loss_with(losses: Losses) -> Callable[..., TokenLoss]:
    """`Transfusion.text_loss`, compiled."""

    def text_loss(model: Transfusion, hidden: Tensor, labels: Tensor) -> TokenLoss:
        return token_loss(hidden, model.head.weight, labels, losses=losses)

    return text_loss
