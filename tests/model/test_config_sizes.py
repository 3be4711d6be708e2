"""Sizes of the transformer's presets, against the rules that Llama's follow."""

from __future__ import annotations

import math

import pytest

from model.config import PRESETS, Preset


@pytest.mark.parametrize("name", sorted(set(PRESETS) - {"tiny"}))
def test_a_feed_forward_layer_is_two_thirds_of_four_widths(name: Preset) -> None:
    """Rounded up to a multiple of 256, which the demonstration's width of 256 is too small for."""
    size, multiple = PRESETS[name], 64 if name == "demo" else 256
    assert size.intermediate_size == multiple * math.ceil(8 * size.hidden_size / 3 / multiple)
    assert size.hidden_size % size.num_attention_heads == 0
    assert size.hidden_size // size.num_attention_heads in (32, 64, 128)
