"""Pictures as vectors: what the autoencoder's encoder says of them at its deepest, averaged over the picture.

The encoder was trained on the corpus itself and on nothing else, so no foreign weights are needed; distances between such
features compare models that share an autoencoder and training pictures, and no others. They are no FID, whose features are
Inception's.

Of an encoder a few directions hold nearly all of the variance, and those say how much of a picture is filled. So the
features are whitened by training pictures: a direction in which those hardly differ weighs as much as any other, and the
autoencoder's own scale is gone.

Legend: N pictures, uint8 [N, height, width, 3]; D numbers of a feature vector, whatever the pictures' size.
"""

from __future__ import annotations

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
    """The features of one autoencoder, whitened by `training` (images)."""

    def __init__(self, autoencoder: Autoencoder, training: np.ndarray) -> None:
        self._autoencoder = autoencoder
        activations = activations_of(autoencoder, training)
        self._mean = activations.mean(0)
        values, vectors = np.linalg.eigh(np.cov(activations, rowvar=False))
        # The smallest number, where all training pictures are alike.
        added = max(LEAST_VARIANCE * values.mean(), np.finfo(np.float64).tiny)
        self._whitening = vectors / np.sqrt(values.clip(0) + added)

    @property
    def num_features(self) -> int:
        """D."""
        return len(self._mean)

    def of(self, images: np.ndarray) -> np.ndarray:
        """float64 [N, D]; of training pictures the mean is 0 and the deviation nearly 1 in every direction."""
        return (activations_of(self._autoencoder, images) - self._mean) @ self._whitening


@torch.inference_mode()
def activations_of(autoencoder: Autoencoder, images: np.ndarray) -> np.ndarray:
    """float64 [N, D]: what enters the encoder's last convolution, averaged over places; D is at most MOST_FEATURES."""
    device = autoencoder.latent_mean.device
    at_once = max(1, min(MOST_A_PASS, PIXELS_A_PASS // (images.shape[1] * images.shape[2])))
    encoder, found = autoencoder.network.encoder, list[Tensor]()
    hook = encoder.conv_out.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].mean((2, 3)).cpu()))
    try:
        for part in torch.from_numpy(images).split(at_once):
            encoder(to_pixels(part.to(device)))
    finally:
        hook.remove()
    return _narrowed(torch.cat(found).double().numpy())


def _narrowed(activations: np.ndarray) -> np.ndarray:
    """Wider ones along MOST_FEATURES orthogonal directions, drawn once for all: what training pictures vary least in stays."""
    width = activations.shape[1]
    if width <= MOST_FEATURES:
        return activations
    directions, _ = np.linalg.qr(generator(STREAM).normal(size=(width, MOST_FEATURES)))
    return activations @ directions
