"""LPIPS, how different two images look: distances of a VGG-16's activations, weighted by channel (arXiv 1801.03924).

The weights are files that the user has: torchvision's VGG-16 and the lpips package's linear layers ("vgg.pth"), or the
state dict of a whole lpips.LPIPS(net="vgg"), which holds both.

Legend: N images; pixels are float [N, 3, height, width] in -1..1, at least config.py's SMALLEST_FOR_LPIPS_PX high and wide.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from components.training.autoencoder.given_files import lpips_files
from core.errors import BadInput

# Channels of VGG-16's convolutions; a pooling stands between two groups, and what leaves a group is compared.
GROUPS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
# ImageNet's mean and deviation, for pixels in -1..1 instead of 0..1.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
# torchvision's name, or the lpips package's, whose slices number the layers as torchvision does.
FEATURE = re.compile(r"(?:features|net\.slice\d)\.(\d+)\.(weight|bias)")
LINEAR = re.compile(r"lin(\d)\.model\.1\.weight")


class Lpips(nn.Module):
    """Weights are named as torchvision's and lpips' files name them; they are never trained."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*_vgg_layers())
        self.linear = nn.ParameterList([nn.Parameter(torch.empty(1, group[-1], 1, 1)) for group in GROUPS])
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """The distance of each pair, [N]; 0 for equal images."""
        pairs = zip(self._activations(one), self._activations(other), self.linear, strict=True)
        return sum((weight * (left - right).square()).sum(1).mean((1, 2)) for left, right, weight in pairs)  # type: ignore[return-value]

    def _activations(self, pixels: Tensor) -> Iterator[Tensor]:
        """What leaves each group, every pixel's vector scaled to length 1."""
        values = (pixels - self.shift) / self.scale
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                yield _unit(values)
            values = layer(values)
        yield _unit(values)


def load_lpips(path: Path) -> Lpips:
    """LPIPS with the weights of a file, or of every .pth, .pt and .safetensors file of a folder.

    Raises BadInput where a weight is missing or has another shape than VGG-16's.
    """
    given, network = _read_weights(path), Lpips()
    for name, weight in network.state_dict().items():
        if name not in given:
            wanted = "torchvision's vgg16 and the lpips package's vgg.pth are wanted"
            raise BadInput(f"autoencoder.loss.lpips_weights: {path} lacks {name}; {wanted}")
        shape, right = list(given[name].shape), list(weight.shape)
        if shape != right:
            raise BadInput(f"autoencoder.loss.lpips_weights: {name} of {path} has shape {shape} and must have {right}")
    network.load_state_dict({name: given[name].float() for name in network.state_dict()})
    return network.eval()


def _vgg_layers() -> Iterator[nn.Module]:
    """Torchvision's order, so that its numbers are ours; the last pooling is not needed."""
    channels = 3
    for number, group in enumerate(GROUPS):
        if number:
            yield nn.MaxPool2d(2)
        for width in group:
            yield nn.Conv2d(channels, width, 3, padding=1)
            yield nn.ReLU()
            channels = width


def _unit(values: Tensor) -> Tensor:
    # The root of 0 has no gradient, and black images have such pixels.
    return values / (values.square().sum(1, keepdim=True) + 1e-20).sqrt()


def _read_weights(path: Path) -> dict[str, Tensor]:
    """Name in Lpips -> weight, of all files; what LPIPS does not need is left out."""
    found = {}
    for file in lpips_files(path):
        for name, weight in _read_file(file).items():
            feature, linear = FEATURE.fullmatch(name), LINEAR.fullmatch(name)
            if feature:
                found[f"features.{feature[1]}.{feature[2]}"] = weight
            elif linear:
                found[f"linear.{linear[1]}"] = weight
    return found


def _read_file(file: Path) -> dict[str, Any]:
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        weights = torch.load(file, map_location="cpu", weights_only=True)
        if isinstance(weights, dict):
            return weights
        reason = f"it holds a {type(weights).__name__}"
    except Exception as error:  # torch and safetensors each have their own for a file that is not theirs
        reason = str(error).splitlines()[0]
    raise BadInput(f"autoencoder.loss.lpips_weights: {file} holds no state dict of tensors ({reason})")
