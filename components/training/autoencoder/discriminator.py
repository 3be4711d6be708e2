"""A patch discriminator with the hinge loss, as VQGAN trains one: which patches of an image look decoded.

Isola et al., arXiv 1611.07004 (the network), Esser et al., arXiv 2012.09841 (hinge loss, adaptive weight). Group norm takes
the place of batch norm, so that the result does not depend on how a batch is divided among workers.

Legend: N images; pixels are float [N, 3, height, width] in -1..1; P/Q patches down and across.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS = (64, 128, 256, 512)
NORM_GROUPS = 32


class PatchDiscriminator(nn.Module):
    """Pixels -> one number a patch of 70 x 70, [N, 1, P, Q]: positive where the patch looks real."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, CHANNELS[0], 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for number, (before, after) in enumerate(pairwise(CHANNELS), start=2):
            stride = 1 if number == len(CHANNELS) else 2
            layers.append(nn.Conv2d(before, after, 4, stride=stride, padding=1, bias=False))
            layers += [nn.GroupNorm(NORM_GROUPS, after), nn.LeakyReLU(0.2)]
        layers.append(nn.Conv2d(CHANNELS[-1], 1, 4, stride=1, padding=1))
        self.layers = nn.Sequential(*layers)
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.02)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels -> [N, 1, P, Q]."""
        return self.layers(pixels)


def discriminator_loss(real: Tensor, decoded: Tensor) -> Tensor:
    """Hinge loss of the discriminator's answers to both kinds of images."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + decoded).mean())


def decoder_loss(decoded: Tensor) -> Tensor:
    """The decoder's term: low where the discriminator takes its patches for real."""
    return -decoded.mean()
