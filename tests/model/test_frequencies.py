"""Frequencies by their definition, made once for a GPU, and fit for training whoever asks first."""

from __future__ import annotations

import pytest
import torch

from model.frequencies import _kept, frequencies


def test_frequencies_fall_from_one_by_equal_ratios() -> None:
    found = frequencies(10_000.0, 4, torch.device("cpu"))
    assert found.tolist() == pytest.approx([1.0, 0.1, 0.01, 0.001])


def test_a_kept_table_is_one_and_no_tensor_of_inference() -> None:
    with torch.inference_mode():
        kept = _kept(500_000.0, 8, torch.device("cpu"))
    assert not kept.is_inference() and _kept(500_000.0, 8, torch.device("cpu")) is kept
    assert torch.equal(kept, frequencies(500_000.0, 8, torch.device("cpu")))
