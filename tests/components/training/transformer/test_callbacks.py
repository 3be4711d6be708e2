"""The peak rate that a GPU's utilisation is measured by, from the name that its driver gives."""

from __future__ import annotations

import pytest
import torch

from components.training.transformer.callbacks import peak_flops

# NVIDIA's data sheets: dense bfloat16 products.
NAMED = [
    ("NVIDIA H100 80GB HBM3", 989e12),
    ("NVIDIA GH200 480GB", 989e12),
    ("NVIDIA A100-SXM4-80GB", 312e12),
    ("NVIDIA L4", 121e12),
    ("NVIDIA L40S", 362e12),
    ("NVIDIA L40", None),
    ("NVIDIA GeForce RTX 4090", 165e12),
    ("NVIDIA GeForce RTX 3060", None),
]


@pytest.mark.parametrize(("name", "peak"), NAMED)
def test_a_gpu_is_known_by_its_whole_name(name: str, peak: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak_flops(torch.device("cuda")) == peak


def test_a_cpu_has_no_peak_to_compare_with() -> None:
    assert peak_flops(torch.device("cpu")) is None
