"""What is the transformer between embedding and heads? Llama's block: pre-norm RMSNorm, rotary positions, SwiGLU, no biases.

Transfusion (arXiv 2408.11039, Sec. 4.1: "follows Llama's settings"). The block knows neither masks nor caches: it hands its
queries, keys and values to `attend`, which training, generation and export each bring. Nor does it know which position is
of which modality: where modalities have weights of their own, `route` sends each position through its own (see experts.py).

Legend: B rows, L positions, D width, H heads, K head width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import ModelConfig
from model.experts import Route

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


class Projections(nn.Module):
    """Attention's weights: the stream to queries, keys and values, and the mixed values back into the stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads, self.head_width = config.num_heads, config.head_width
        self.norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        # Bounded scores keep half precision stable at high rates (Chameleon, arXiv 2405.09818, Sec. 2.2).
        self.query_norm = nn.RMSNorm(config.head_width, eps=config.norm_eps) if config.qk_norm else None
        self.key_norm = nn.RMSNorm(config.head_width, eps=config.norm_eps) if config.qk_norm else None
        self.out = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., 3 * D]: queries, keys, values, each head by head."""
        qkv = self.qkv(self.norm(x))
        if self.query_norm is None or self.key_norm is None:
            return qkv
        query, key, value = qkv.unflatten(-1, (3, self.num_heads, self.head_width)).unbind(-3)
        # Autocast norms in float32; attention is to run in what the projection gave.
        normed = [self.query_norm(query).to(value.dtype), self.key_norm(key).to(value.dtype), value]
        return torch.stack(normed, dim=-3).flatten(-3)


class FeedForward(nn.Module):
    """SwiGLU behind an RMSNorm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.gate_up = nn.Linear(config.width, 2 * config.mlp_width, bias=False)
        self.down = nn.Linear(config.mlp_width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D], to be added to the stream."""
        gate, up = self.gate_up(self.norm(x)).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class Block(nn.Module):
    """One layer: attention and a feed-forward, each added to the stream; each a list with an entry for every expert."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads, self.head_width = config.num_heads, config.head_width
        num_projections = config.num_experts if config.experts == "full" else 1
        self.attention = nn.ModuleList(Projections(config) for _ in range(num_projections))
        self.feed_forward = nn.ModuleList(FeedForward(config) for _ in range(config.num_experts))

    def forward(self, x: Tensor, turn: Rotation, layer: int, attend: Attend, route: Route) -> Tensor:
        """x: [B, L, D] -> [B, L, D]."""
        return self.after(x, attend(layer, *self.before(x, turn, route)), route)

    def before(self, x: Tensor, turn: Rotation, route: Route) -> tuple[Tensor, Tensor, Tensor]:
        """What attention takes, each [B, H, L, K]: queries and keys, turned, and values. x: [B, L, D]."""
        # Cut before heads are, because the compiled gradient of that is three copies, and of the reverse a gather.
        parts = route(self.attention, x).chunk(3, dim=-1)
        query, key, value = (part.unflatten(-1, (self.num_heads, self.head_width)).transpose(1, 2) for part in parts)
        return rotate(query, turn), rotate(key, turn), value

    def after(self, x: Tensor, mixed: Tensor, route: Route) -> Tensor:
        """The block's result, [B, L, D], from its input and what attention made. mixed: [B, H, L, K]."""
        mixed = mixed.transpose(1, 2).reshape(x.shape)
        x = x + route([cast(Projections, each).out for each in self.attention], mixed)
        return x + route(self.feed_forward, x)


class Transformer(nn.Module):
    """The stack of blocks and the last norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_width, self.theta = config.head_width, config.rope_theta
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        num_norms = config.num_experts if config.experts == "full" else 1
        self.norms = nn.ModuleList(nn.RMSNorm(config.width, eps=config.norm_eps) for _ in range(num_norms))

    def forward(self, x: Tensor, position: Tensor, attend: Attend, route: Route) -> Tensor:
        """x: [B, L, D], position: integer [B, L] -> [B, L, D], normalised, ready for either head."""
        turn = rotation(position, self.head_width, self.theta)
        for layer, block in enumerate(self.blocks):
            x = block(x, turn, layer, attend, route)
        return route(self.norms, x)
