"""Pictures as vectors: what the autoencoder's encoder says of them at its deepest, averaged over the picture.

The encoder was trained on the corpus itself and on nothing else, so no foreign weights are needed; distances between such
features compare models that share an autoencoder and training pictures, and no others. They are no FID, whose features are
Inception's.

Of an encoder a few directions hold nearly all of the variance, and those say how much of a picture is filled. So the
features are whitened by training pictures: a direction in which those hardly differ weighs as much as any other, and the
autoencoder's own scale is gone.

Pictures come as an array or as something that decodes them one by one: no more than those of a pass are held.

Legend: N pictures, uint8 [N, height, width, 3]; D numbers of a feature vector, whatever the pictures' size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from core.random import generator
from model.latents.autoencoder import Autoencoder, to_pixels

# Of a feature vector: more could not be told from so few hundred pictures.
MOST_FEATURES = 64
# Of the mean variance of a direction, added to each: directions that hold rounding alone stay small.
LEAST_VARIANCE = 1e-3
# Of the generator's key.
STREAM = 79
# Pixels and pictures of one pass of the encoder; fixed, for rounding depends on it.
PIXELS_A_PASS, MOST_A_PASS = 2**20, 64


class FeatureSpace:
    """The features of one autoencoder, whitened by `training` (two images or more)."""

    def __init__(self, autoencoder: Autoencoder, training: Iterable[np.ndarray]) -> None:
        self._autoencoder = autoencoder
        activations = activations_of(autoencoder, training)
        self._mean = activations.mean(0)
        values, vectors = np.linalg.eigh(np.cov(activations, rowvar=False))
        # The smallest number, where all training pictures are alike.
        added = max(LEAST_VARIANCE * values.mean(), np.finfo(np.float64).tiny)
        self._whitening = vectors / np.sqrt(values.clip(0) + added)

    def of(self, images: Iterable[np.ndarray]) -> np.ndarray:
        """float64 [N, D]; of training pictures the mean is 0 and the deviation nearly 1 in every direction."""
        return (activations_of(self._autoencoder, images) - self._mean) @ self._whitening


def num_features(autoencoder: Autoencoder) -> int:
    """D."""
    return min(MOST_FEATURES, int(autoencoder.network.encoder.conv_out.in_channels))


@torch.inference_mode()
def activations_of(autoencoder: Autoencoder, images: Iterable[np.ndarray]) -> np.ndarray:
    """float64 [N, D]: what enters the encoder's last convolution, averaged over places; D is at most MOST_FEATURES."""
    device = autoencoder.latent_mean.device
    encoder, found = autoencoder.network.encoder, list[Tensor]()
    hook = encoder.conv_out.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].mean((2, 3)).cpu()))
    try:
        for part in _passes(iter(images)):
            encoder(to_pixels(torch.from_numpy(part).to(device)))
    finally:
        hook.remove()
    return _narrowed(torch.cat(found).double().numpy())


def _passes(images: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    for first in images:
        num = max(1, min(MOST_A_PASS, PIXELS_A_PASS // (first.shape[0] * first.shape[1])))
        yield np.stack([first, *islice(images, num - 1)])


def _narrowed(activations: np.ndarray) -> np.ndarray:
    """Wider ones along MOST_FEATURES random orthogonal directions, always the same: what pictures vary least in stays."""
    width = activations.shape[1]
    if width <= MOST_FEATURES:
        return activations
    directions, _ = np.linalg.qr(generator(STREAM).normal(size=(width, MOST_FEATURES)))
    return activations @ directions
