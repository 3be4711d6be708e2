"""How much arithmetic does a step need, and how much could the accelerator do?

Counted for the least that computes the same: no recomputation, attention only where it is visible, the head only where
text is predicted.
"""

from __future__ import annotations

import torch
from torch import nn

from model.batch import Batch
from model.transfusion import Transfusion

# Dense bfloat16 peaks in FLOP/s, by a part of the device's name (the makers' data sheets).
PEAKS = {
    "H200": 989e12,
    "H100": 989e12,
    "GH200": 989e12,
    "A100": 312e12,
    "B200": 2250e12,
    "L40S": 362e12,
    "L4": 121e12,
    "4090": 165e12,
}


def step_flops(model: Transfusion, batch: Batch, num_positions: int) -> float:
    """Floating-point operations of one forward and backward pass of a batch with num_positions positions in use."""
    config = model.config
    # A position goes through one expert of each place, so what counts is the size of one.
    block = model.transformer.blocks[0]
    experts = [block.get_submodule("attention.0"), block.get_submodule("feed_forward.0")]
    core = config.num_layers * sum(_num_weights(expert) for expert in experts)
    codecs = sum(_num_weights(codec) * len(part.patch_at) for codec, part in zip(model.codecs, batch.latents, strict=True))
    # 2 operations a weight forward, 4 backward; attention has a product with the keys and one with the values.
    weights = 6 * (core * num_positions + codecs + config.width * config.vocab_size * len(batch.predict_at))
    visible = (batch.last - batch.first + 1).sum().item()
    return weights + 12 * config.num_layers * config.width * visible


def _num_weights(module: nn.Module) -> int:
    """Of the matrices alone."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.dim() >= 2)


def peak_flops(device: torch.device) -> float | None:
    """The device's peak, or None where it is not known (a CPU, a GPU not in the table)."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if part in name), None)
