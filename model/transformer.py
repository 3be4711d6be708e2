"""What is the transformer between embedding and heads? Llama's block: pre-norm RMSNorm, rotary positions, SwiGLU, no biases.

Transfusion (arXiv 2408.11039, Sec. 4.1: "follows Llama's settings"). The block knows neither masks nor caches: it hands its
queries, keys and values to `attend`, which training, generation and export each bring.

Legend: B rows, L positions, D width, H heads, K head width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import ModelConfig

# (layer index, queries, keys, values), each [B, H, L, K] -> [B, H, L, K]
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


class Rotation(NamedTuple):
    """Cosines and sines of every position, each [B, 1, L, K / 2] in float32."""

    cos: Tensor
    sin: Tensor


def rotation(position: Tensor, head_width: int, theta: float) -> Rotation:
    """Rotary angles of integer positions [B, L]; in float32, because half precision rounds the table away."""
    half = head_width // 2
    # A literal table: exporters fold a computed one with an exp of their own, whose last bits the large positions magnify.
    frequency = torch.tensor([theta ** (-i / half) for i in range(half)], dtype=torch.float32, device=position.device)
    angle = (position.float().unsqueeze(-1) * frequency).unsqueeze(1)
    return Rotation(angle.cos(), angle.sin())


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn each pair (first half, second half) of the head width by its position's angle. x: [B, H, L, K]."""
    real, imaginary = x.chunk(2, dim=-1)
    cos, sin = rotation.cos.to(x.dtype), rotation.sin.to(x.dtype)
    return torch.cat([real * cos - imaginary * sin, real * sin + imaginary * cos], dim=-1)


class Block(nn.Module):
    """One layer: attention and a SwiGLU feed-forward, each behind an RMSNorm and added to the stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads, self.head_width = config.num_heads, config.head_width
        self.attention_norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        # Bounded scores keep half precision stable at high rates (Chameleon, arXiv 2405.09818, Sec. 2.2).
        self.query_norm = nn.RMSNorm(config.head_width, eps=config.norm_eps) if config.qk_norm else nn.Identity()
        self.key_norm = nn.RMSNorm(config.head_width, eps=config.norm_eps) if config.qk_norm else nn.Identity()
        self.out = nn.Linear(config.width, config.width, bias=False)
        self.mlp_norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.gate_up = nn.Linear(config.width, 2 * config.mlp_width, bias=False)
        self.down = nn.Linear(config.mlp_width, config.width, bias=False)

    def forward(self, x: Tensor, turn: Rotation, layer: int, attend: Attend) -> Tensor:
        """x: [B, L, D] -> [B, L, D]."""
        num_rows, length, width = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(num_rows, length, 3, self.num_heads, self.head_width)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = attend(layer, rotate(self.query_norm(query), turn), rotate(self.key_norm(key), turn), value)
        x = x + self.out(mixed.transpose(1, 2).reshape(num_rows, length, width))
        gate, up = self.gate_up(self.mlp_norm(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class Transformer(nn.Module):
    """The stack of blocks and the last norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_width, self.theta = config.head_width, config.rope_theta
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = nn.RMSNorm(config.width, eps=config.norm_eps)

    def forward(self, x: Tensor, position: Tensor, attend: Attend) -> Tensor:
        """x: [B, L, D], position: integer [B, L] -> [B, L, D], normalised, ready for either head."""
        turn = rotation(position, self.head_width, self.theta)
        for layer, block in enumerate(self.blocks):
            x = block(x, turn, layer, attend)
        return self.norm(x)
