"""Queries and keys normalised head by head, against the formula, with scales that are not one."""

from __future__ import annotations

import math
import random

import pytest
import torch

from model.transformer import Block, rotary_embedding
from tests.model.conftest import tiny_config


def rotated(x: torch.Tensor, position: torch.Tensor, theta: float) -> torch.Tensor:
    """[B, H, L, K] as complex numbers: the first half of a head is the real part."""
    half = x.shape[-1] // 2
    angle = position[:, None, :, None].double() * theta ** (-torch.arange(half).double() / half)
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([turned.real, turned.imag], dim=-1)


@pytest.mark.parametrize("qk_norm", [False, True])
def test_queries_and_keys_are_normed_before_they_are_turned(qk_norm: bool, rng: random.Random) -> None:
    torch.manual_seed(rng.randrange(2**31))
    config = tiny_config(qk_norm=qk_norm)
    block = Block(config)
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            # Every norm its own scales.
            torch.nn.init.uniform_(parameter, 0.5, 2) if "norm" in name else torch.nn.init.normal_(parameter, std=0.3)
    x, position = torch.randn(2, 5, config.hidden_size), torch.randint(20, (2, 5))
    with torch.no_grad():
        got = block.qkv(
            x, rotary_embedding(position, config.head_dim, config.rope_theta), lambda layers, given: layers[0](given)
        )
    weights = {name: weight.detach().double() for name, weight in block.attention[0].named_parameters()}
    assert {name for name in weights if "_norm" in name} == ({"query_norm.weight", "key_norm.weight"} if qk_norm else set())

    def normed(part: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return part / (part.square().mean(-1, keepdim=True) + config.rms_norm_eps).sqrt() * scale

    parts = (normed(x.double(), weights["norm.weight"]) @ weights["qkv.weight"].T).chunk(3, dim=-1)
    heads = [part.view(2, 5, config.num_attention_heads, config.head_dim).transpose(1, 2) for part in parts]
    for number, name in enumerate(("query_norm.weight", "key_norm.weight")):
        if qk_norm:
            heads[number] = normed(heads[number], weights[name])
        heads[number] = rotated(heads[number], position, config.rope_theta)
    for one, wanted in zip(got, heads, strict=True):
        torch.testing.assert_close(one.double(), wanted, rtol=1e-4, atol=1e-4)


def test_normed_scores_are_bounded(rng: random.Random) -> None:
    """A query and a key of root-mean-square 1 have a product of at most the head's width, however large the stream."""
    torch.manual_seed(rng.randrange(2**31))
    config = tiny_config(qk_norm=True)
    block, position = Block(config), torch.arange(6)[None]
    with torch.no_grad():
        for parameter in block.attention[0].get_submodule("qkv").parameters():
            parameter.mul_(1000)
        cos_sin = rotary_embedding(position, config.head_dim, config.rope_theta)
        query, key, _ = block.qkv(torch.randn(1, 6, config.hidden_size) * 50, cos_sin, lambda layers, given: layers[0](given))
    largest = float((query @ key.transpose(2, 3)).abs().max())
    assert largest <= config.head_dim * 1.001
    assert largest > math.sqrt(config.head_dim) / 4
