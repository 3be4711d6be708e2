"""Packed layers against the product in double precision, and what a packed model shares with its original."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

from model.packed_linear import PackedLinear, can_be_packed, packed
from tests.model.conftest import tiny_model


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float64, 1e-12)])
def test_a_packed_layer_is_the_product(bias: bool, dtype: torch.dtype, tolerance: float, rng: random.Random) -> None:
    torch.manual_seed(rng.randrange(2**31))
    for _ in range(10):
        plain = nn.Linear(rng.randrange(1, 90), rng.randrange(1, 90), bias=bias).to(dtype)
        x = torch.randn(*(rng.randrange(1, 9) for _ in range(rng.randrange(1, 4))), plain.in_features, dtype=dtype)
        wanted = x.double() @ plain.weight.double().T + (plain.bias.double() if bias else 0)
        (layer,) = packed(nn.Sequential(plain))
        # What oneDNN cannot pack here stays plain, and is the product all the same.
        assert isinstance(layer, PackedLinear) == can_be_packed(dtype)
        with torch.inference_mode():
            out = layer(x)
        assert out.dtype == dtype
        torch.testing.assert_close(out.double(), wanted.detach(), rtol=tolerance, atol=tolerance)


def test_single_precision_can_be_packed_and_double_cannot() -> None:
    assert can_be_packed(torch.float32)
    assert not can_be_packed(torch.float64)


def test_a_packed_model_shares_its_weights_and_leaves_the_other_as_it_was() -> None:
    model = tiny_model()
    copied = packed(model)
    assert not any(isinstance(each, PackedLinear) for each in model.modules())
    assert not any(type(each) is nn.Linear for each in copied.modules())
    assert [id(each) for each in copied.parameters()] == [id(each) for each in model.parameters()]
    assert copied.state_dict().keys() == model.state_dict().keys()
