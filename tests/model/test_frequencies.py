"""Frequencies by their definition, made once for a device, and fit for training whoever asks first."""

from __future__ import annotations

import pytest
import torch

from model.frequencies import frequencies

CPU = torch.device("cpu")


def test_frequencies_fall_from_one_by_equal_ratios() -> None:
    assert frequencies(10_000.0, 4, CPU).tolist() == pytest.approx([1.0, 0.1, 0.01, 0.001])


def test_a_table_is_made_once_and_is_no_tensor_of_inference() -> None:
    with torch.inference_mode():
        kept = frequencies(123_456.0, 8, CPU)
    assert not kept.is_inference() and frequencies(123_456.0, 8, CPU) is kept
