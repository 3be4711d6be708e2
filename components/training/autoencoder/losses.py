"""The autoencoder's losses: pixels that differ, images that look different, and what its latents may carry.

Transfusion, arXiv 2408.11039, App. A: an absolute, a perceptual (LPIPS) and an adversarial term, and a KL of 1e-6. On mostly
black pictures the absolute error's median is black and learning stalls there (19.8 dB where the squared error reaches
28.2 dB), so the demonstration takes the squared one.

Legend: N images, C latent channels, Y/X latent height/width; pixels are float [N, 3, height, width] in -1..1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from components.runtime.world import World
from components.training.autoencoder.config import AutoencoderConfig
from components.training.autoencoder.discriminator import decoder_loss
from components.training.autoencoder.perceptual import Lpips
from model.latents.autoencoder import QuantisedReconstruction, Reconstruction

MOST_ADAPTIVE_WEIGHT = 1e4


def picture_loss(config: AutoencoderConfig, decoded: Tensor, pixels: Tensor, lpips: Lpips | None) -> Tensor:
    """Mean over images of the pixels' error and, with its network, of LPIPS."""
    error = F.l1_loss if config.loss.reconstruction == "l1" else F.mse_loss
    loss = error(decoded.float(), pixels)
    if lpips is not None:
        loss = loss + config.loss.lpips_weight * lpips(decoded, pixels).float().mean()
    return loss


def latent_loss(config: AutoencoderConfig, result: Reconstruction | QuantisedReconstruction) -> Tensor:
    """Kind kl: the KL to a standard normal, of an image's latents together, shared among its pixels' numbers. Kind vq: both
    distances to the codes.

    Beside a mean over pixels it counts as in LDM (Rombach et al., arXiv 2112.10752), whose code sums both over an image.
    """
    if isinstance(result, QuantisedReconstruction):
        return config.codes.commitment_weight * result.commitment + config.codes.codebook_weight * result.codebook
    mean, log_variance = result.mean.float(), result.log_variance.float()
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum((1, 2, 3)).mean()
    return config.loss.kl_weight * kl / result.pixels[0].numel()


def adversarial_loss(discriminator: nn.Module, decoded: Tensor) -> Tensor:
    """The decoder's hinge term; the discriminator's own weights get no gradient of it."""
    frozen = {name: weight.detach() for name, weight in discriminator.named_parameters()}
    return decoder_loss(functional_call(discriminator, frozen, (decoded,)).float())


def adaptive_weight(picture: Tensor, adversarial: Tensor, last_layer: Tensor, world: World) -> Tensor:
    """The ratio of both terms' gradients at the decoder's last layer, over all workers (VQGAN, eq. 7).

    picture, adversarial: this worker's shares of the two terms.
    """
    gradients = [torch.autograd.grad(term, last_layer, retain_graph=True)[0] for term in (picture, adversarial)]
    together = world.all_reduce(torch.stack(gradients).detach())
    of_picture, of_adversarial = together.flatten(1).norm(dim=1)
    return (of_picture / (of_adversarial + 1e-4)).clamp(0, MOST_ADAPTIVE_WEIGHT)
