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
    for name in refused:
        monkeypatch.setattr(torch.cuda, name, refuse)
    figures = utilisation(torch.device("cuda", 1))
    memory = figures.pop("system/gpu_1_memory_usage_megabytes", None)
    assert memory == (None if "mem_get_info" in refused else 1024.0)
    assert figures.keys() == utilisation(torch.device("cpu")).keys()
