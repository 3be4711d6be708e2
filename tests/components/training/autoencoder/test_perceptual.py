"""LPIPS is computed as its paper says from files as torchvision and lpips lay them out; wrong files are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from components.training.autoencoder.perceptual import load_lpips
from core.errors import BadInput

# torchvision's vgg16: number of the convolution -> (channels out, channels in).
CONVOLUTIONS = {
    0: (64, 3),
    2: (64, 64),
    5: (128, 64),
    7: (128, 128),
    10: (256, 128),
    12: (256, 256),
    14: (256, 256),
    17: (512, 256),
    19: (512, 512),
    21: (512, 512),
    24: (512, 512),
    26: (512, 512),
    28: (512, 512),
}
SLICES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))


def made_weights(seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Random weights under torchvision's names and under the lpips package's."""
    print(f"seed {seed}")
    generator = torch.Generator().manual_seed(seed)
    features = {}
    for number, (wide, narrow) in CONVOLUTIONS.items():
        scale = (2 / (9 * narrow)) ** 0.5
        features[f"features.{number}.weight"] = scale * torch.randn(wide, narrow, 3, 3, generator=generator)
        features[f"features.{number}.bias"] = 0.1 * torch.randn(wide, generator=generator)
    features["classifier.0.weight"] = torch.zeros(2, 2)
    widths = (64, 128, 256, 512, 512)
    linear = {
        f"lin{index}.model.1.weight": torch.rand(1, width, 1, 1, generator=generator) for index, width in enumerate(widths)
    }
    return features, linear


def write_weights(folder: Path, seed: int) -> None:
    features, linear = made_weights(seed)
    torch.save(features, folder / "vgg16.pth")
    torch.save(linear, folder / "vgg.pth")


def reference(features: dict[str, Tensor], linear: dict[str, Tensor], one: Tensor, other: Tensor) -> Tensor:
    """Zhang et al., eq. 1, written out over torchvision's layers, in float64."""

    def activations(pixels: Tensor) -> list[Tensor]:
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        values, found = (((pixels + 1) / 2 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)).double(), []
        for index, group in enumerate(SLICES):
            values = F.max_pool2d(values, 2) if index else values
            for number in group:
                weight, bias = features[f"features.{number}.weight"], features[f"features.{number}.bias"]
                values = F.relu(F.conv2d(values, weight.double(), bias.double(), padding=1))
            found.append(F.normalize(values, dim=1))
        return found

    total = torch.zeros(len(one), dtype=torch.float64)
    for index, (left, right) in enumerate(zip(activations(one), activations(other), strict=True)):
        weight = linear[f"lin{index}.model.1.weight"].double().flatten()
        total += torch.einsum("nchw,c->n", (left - right).square(), weight) / (left.shape[2] * left.shape[3])
    return total


def test_it_is_the_papers_distance(tmp_path: Path) -> None:
    write_weights(tmp_path, seed=2)
    network = load_lpips(tmp_path)
    one, other = torch.rand(2, 3, 32, 24) * 2 - 1, torch.rand(2, 3, 32, 24) * 2 - 1
    found, expected = network(one, other), reference(*made_weights(seed=2), one, other)
    torch.testing.assert_close(found.double(), expected, rtol=2e-3, atol=1e-6)
    assert torch.equal(network(one, one), torch.zeros(2))
    assert (found > 0.01).all()
    assert not any(parameter.requires_grad for parameter in network.parameters())
    # Black pictures have pixels without any activation, where a root has no gradient.
    black = torch.full((1, 3, 16, 16), -1.0, requires_grad=True)
    network(black, one[:1, :, :16, :16]).sum().backward()
    assert black.grad is not None and torch.isfinite(black.grad).all()


def test_a_whole_lpips_state_dict_is_taken(tmp_path: Path) -> None:
    features, linear = made_weights(seed=3)
    sliced = dict(linear)
    for index, group in enumerate(SLICES, start=1):
        for number in group:
            for kind in ("weight", "bias"):
                sliced[f"net.slice{index}.{number}.{kind}"] = features[f"features.{number}.{kind}"]
    save_file(sliced | {"scaling_layer.shift": torch.zeros(1)}, tmp_path / "whole.safetensors")
    (tmp_path / "parts").mkdir()
    write_weights(tmp_path / "parts", seed=3)
    one, other = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)
    assert torch.equal(load_lpips(tmp_path / "whole.safetensors")(one, other), load_lpips(tmp_path / "parts")(one, other))


def test_files_that_are_not_its_own_are_refused(tmp_path: Path) -> None:
    features, linear = made_weights(seed=4)
    with pytest.raises(BadInput, match="no folder of them"):
        load_lpips(tmp_path)
    torch.save(features, tmp_path / "vgg16.pth")
    with pytest.raises(BadInput, match=r"lacks linear\.0"):
        load_lpips(tmp_path)
    torch.save(linear | {"lin3.model.1.weight": torch.zeros(1, 256, 1, 1)}, tmp_path / "vgg.pth")
    with pytest.raises(BadInput, match=r"linear\.3 .*\[1, 256, 1, 1\] and must have \[1, 512, 1, 1\]"):
        load_lpips(tmp_path)
    (tmp_path / "vgg.pth").write_bytes(b"not a state dict")
    with pytest.raises(BadInput, match=r"vgg\.pth holds no state dict"):
        load_lpips(tmp_path)
