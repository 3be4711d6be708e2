"""The peak rates of known accelerators; model/flops.py counts what a step needs."""

from __future__ import annotations

import torch

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


def peak_flops(device: torch.device) -> float | None:
    """The device's peak, or None where it is not known (a CPU, a GPU not in the table)."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if part in name), None)
