"""The transformer between embedding and heads: Llama's block, with pre-norm RMSNorm, rotary positions, SwiGLU and no biases.

Transfusion (arXiv 2408.11039, Sec. 4.1: "follows Llama's settings"). The block knows neither masks nor caches: it hands its
queries, keys and values to `attend`, which training, generation and export each bring. Nor does it know which position is
of which modality: where modalities have weights of their own, `route` sends each position through its own (see experts.py).

Legend: B rows, L positions, D hidden size, H heads, K head dim.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import ModelConfig
from model.experts import Route
from model.frequencies import frequencies

# (layer index, queries, keys, values), each [B, H, L, K] -> [B, H, L, K]. A closure over what is worked out once for all layers
# of a batch or step: masks, groups of documents, the cache.
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


class RotaryEmbedding(NamedTuple):
    """Cosines and sines of every position, each [B, 1, L, K / 2] in float32."""

    cos: Tensor
    sin: Tensor


def rotary_embedding(position_ids: Tensor, head_dim: int, theta: float) -> RotaryEmbedding:
    """Rotary angles of integer positions [B, L]; in float32, because half precision rounds the table away."""
    frequency = frequencies(theta, head_dim // 2, position_ids.device)
    angle = (position_ids.float().unsqueeze(-1) * frequency).unsqueeze(1)
    return RotaryEmbedding(angle.cos(), angle.sin())


def apply_rotary(x: Tensor, cos_sin: RotaryEmbedding) -> Tensor:
    """Turn each pair (first half, second half) of the head dim by its position's angle. x: [B, H, L, K]."""
    real, imaginary = x.chunk(2, dim=-1)
    # Halves and not neighbours are paired, as Hugging Face's Llama does: two slices instead of a gather. In
    # the precision of x, for in float32 the rotation of halves takes half as long again on a CPU.
    cos, sin = cos_sin.cos.to(x.dtype), cos_sin.sin.to(x.dtype)
    return torch.cat([real * cos - imaginary * sin, real * sin + imaginary * cos], dim=-1)


class AttentionProjections(nn.Module):
    """Attention's weights, on either side of attention itself."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads, self.head_dim = config.num_attention_heads, config.head_dim
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        # One product instead of three.
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=False)
        # Bounded scores keep half precision stable at high rates (Chameleon, arXiv 2405.09818, Sec. 2.2).
        self.query_norm = nn.RMSNorm(config.head_dim, eps=config.rms_norm_eps) if config.qk_norm else None
        self.key_norm = nn.RMSNorm(config.head_dim, eps=config.rms_norm_eps) if config.qk_norm else None
        self.out = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def project_in(self, x: Tensor) -> Tensor:
        """Hidden states [..., D] -> [..., 3 * D]: queries, keys, values, each head by head."""
        qkv = self.qkv(self.norm(x))
        if self.query_norm is None or self.key_norm is None:
            return qkv
        query, key, value = qkv.unflatten(-1, (3, self.num_heads, self.head_dim)).unbind(-3)
        # Put together again, because a route joins the experts' results position by position, and `Block.qkv` cuts them once
        # more. Autocast norms in float32; attention is to run in what the projection gave.
        normed = [self.query_norm(query).to(value.dtype), self.key_norm(key).to(value.dtype), value]
        return torch.stack(normed, dim=-3).flatten(-3)

    def project_out(self, attn_output: Tensor) -> Tensor:
        """[..., D] -> [..., D], to be added to the hidden states."""
        return self.out(attn_output)


class FeedForward(nn.Module):
    """SwiGLU behind an RMSNorm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.gate_up = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D], to be added to the hidden states."""
        gate, up = self.gate_up(self.norm(x)).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class Block(nn.Module):
    """One layer: attention and a feed-forward, each added to the hidden states; each a list with an entry for every expert."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads, self.head_dim = config.num_attention_heads, config.head_dim
        num_projections = config.num_experts if config.experts == "full" else 1
        self.attention = nn.ModuleList(AttentionProjections(config) for _ in range(num_projections))
        self.feed_forward = nn.ModuleList(FeedForward(config) for _ in range(config.num_experts))

    def forward(self, x: Tensor, cos_sin: RotaryEmbedding, layer: int, attend: Attend, route: Route) -> Tensor:
        """x: [B, L, D] -> [B, L, D]."""
        return self.output_mlp(x, attend(layer, *self.qkv(x, cos_sin, route)), route)

    def qkv(self, x: Tensor, cos_sin: RotaryEmbedding, route: Route) -> tuple[Tensor, Tensor, Tensor]:
        """What attention takes, each [B, H, L, K]: rotated queries and keys, and values. x: [B, L, D]."""
        projected = route([cast(AttentionProjections, each).project_in for each in self.attention], x)
        # Cut before heads are, because the compiled gradient of that is three copies, and of the reverse a gather.
        parts = projected.chunk(3, dim=-1)
        query, key, value = (part.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2) for part in parts)
        return apply_rotary(query, cos_sin), apply_rotary(key, cos_sin), value

    def output_mlp(self, x: Tensor, attn_output: Tensor, route: Route) -> Tensor:
        """The block's result, [B, L, D], from its input and what attention made. attn_output: [B, H, L, K]."""
        attn_output = attn_output.transpose(1, 2).reshape(x.shape)
        x = x + route([cast(AttentionProjections, each).project_out for each in self.attention], attn_output)
        return x + route(list(self.feed_forward), x)


class Transformer(nn.Module):
    """The stack of blocks and the last norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_dim, self.rope_theta = config.head_dim, config.rope_theta
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        num_norms = config.num_experts if config.experts == "full" else 1
        self.norms = nn.ModuleList(nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps) for _ in range(num_norms))

    def forward(self, x: Tensor, position_ids: Tensor, attend: Attend, route: Route) -> Tensor:
        """x: [B, L, D], position_ids: integer [B, L] -> [B, L, D], normalised, ready for either head."""
        cos_sin = rotary_embedding(position_ids, self.head_dim, self.rope_theta)
        for layer, block in enumerate(self.blocks):
            x = block(x, cos_sin, layer, attend, route)
        return route(list(self.norms), x)
