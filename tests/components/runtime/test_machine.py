"""What the machine cannot tell is left out, and ends nothing."""

from __future__ import annotations

import pytest
import torch

from components.runtime.machine import utilisation


class NVMLError(Exception):
    """As NVIDIA's management library has it: of no other kind than Exception."""


def refuse(device: torch.device) -> float:
    raise NVMLError("Not Supported")


@pytest.mark.parametrize("refused", [["utilization"], ["utilization", "mem_get_info"]])
def test_a_gpu_that_does_not_tell_its_figures(refused: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**30, 2**31))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**29)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    for name in refused:
        monkeypatch.setattr(torch.cuda, name, refuse)
    figures = utilisation(torch.device("cuda", 1))
    memory = figures.pop("system/gpu_1_memory_usage_megabytes", None)
    assert memory == (None if "mem_get_info" in refused else 1024.0)
    assert figures.pop("system/gpu_1_peak_tensor_memory_megabytes") == 1536.0
    assert figures.keys() == utilisation(torch.device("cpu")).keys()


def test_the_peak_of_memory_is_of_this_process_and_stays() -> None:
    before = utilisation(torch.device("cpu"))["system/peak_process_memory_megabytes"]
    held = torch.ones(2**26)
    during = utilisation(torch.device("cpu"))["system/peak_process_memory_megabytes"]
    del held
    assert 50 < before <= during <= utilisation(torch.device("cpu"))["system/peak_process_memory_megabytes"]
    assert during >= 256
