"""How much arithmetic does a step need, and how much could the accelerator do?

Counted for the least that computes the same: no recomputation, attention only where it is visible, the head only where
text is predicted.
"""

from __future__ import annotations

import torch

from model.transfusion import Batch, Transfusion

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
    core = sum(parameter.numel() for parameter in model.transformer.parameters() if parameter.dim() >= 2)
    codec = sum(parameter.numel() for parameter in model.codec.parameters() if parameter.dim() >= 2)
    # 2 operations a weight forward, 4 backward; attention has a product with the keys and one with the values.
    weights = 6 * (
        core * num_positions + codec * len(batch.patch_at) + config.width * config.vocab_size * len(batch.predict_at)
    )
    visible = (batch.last - batch.first + 1).sum().item()
    return weights + 12 * config.num_layers * config.width * visible


def peak_flops(device: torch.device) -> float | None:
    """The device's peak, or None where it is not known (a CPU, a GPU not in the table)."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if part in name), None)
