"""Under autocast to bfloat16 the last layer of a prediction stays in float32."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from torch import nn

from model.latents.patches import LinearPatchLayers
from model.latents.unet_patches import UNetPatchLayers
from tests.model.conftest import tiny_config


def last_layer(layers: LinearPatchLayers | UNetPatchLayers) -> nn.Linear | nn.Conv2d:
    last = layers.conv_out if isinstance(layers, UNetPatchLayers) else layers.proj_out
    assert isinstance(last, nn.Linear | nn.Conv2d)
    return last


@pytest.mark.parametrize("kind", ["linear", "unet"])
def test_the_last_layer_of_a_prediction_is_not_rounded(kind: str, rng: random.Random) -> None:
    torch.manual_seed(rng.randrange(2**32))
    modality = replace(tiny_config().image, patch_layers="unet", unet_channels=(8, 12))
    layers = UNetPatchLayers(modality, 16) if kind == "unet" else LinearPatchLayers(modality.patch_dim, 16)
    last, calls = last_layer(layers), []
    nn.init.normal_(last.weight, std=0.3)
    last.register_forward_hook(lambda layer, inputs, output: calls.append((inputs[0], output)))
    grids, time = ((2, 3), (2, 2)), torch.rand(2)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        _, skip = layers.patch_in(torch.randn(10, modality.patch_dim), time, torch.tensor([0] * 6 + [1] * 4), grids)
        prediction = layers.patch_out(torch.randn(10, 16), time, grids, skip)  # type: ignore[arg-type]
    assert prediction.dtype == torch.float32
    assert sum(output.numel() for _, output in calls) == prediction.numel()
    exact = last.double()
    for inputs, output in calls:
        torch.testing.assert_close(output.double(), exact.forward(inputs.double()), rtol=1e-5, atol=1e-5)
