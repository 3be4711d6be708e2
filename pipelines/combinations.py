"""Settings of several sections that cannot be true together, found before any work.

What one section can tell by itself stands in its configuration. A given autoencoder and the corpora are files, which the
stages look at.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from components.evaluation.metrics import METRICS, metric_of
from components.training.autoencoder.config import SMALLEST_FOR_DISCRIMINATOR_PX, SMALLEST_FOR_LPIPS_PX
from model.latents.sizes import PRESETS
from pipelines.sections import Params

# Around an image alone: begin and end of the document and of the image.
NUM_TOKENS_AROUND = 4


def contradictions(params: Params) -> Iterator[str]:
    """One sentence each: the dotted path, its value, what it contradicts, and what to do."""
    if not params.autoencoder.pretrained:
        yield from _of_the_images(params)
    yield from _of_the_metrics(params)


def _of_the_images(params: Params) -> Iterator[str]:
    side, config = params.ingest.image_side_px, params.autoencoder
    halvings = PRESETS[config.preset].num_halvings
    if side % 2**halvings:
        yield (
            f"ingest.image_side_px = {side} cannot be halved {halvings} times, as autoencoder.preset {config.preset} does; "
            f"take a multiple of {2**halvings}"
        )
        return
    latent_side, patch_side = side // 2**halvings, params.train.model.patch_side
    if latent_side % patch_side:
        yield (
            f"train.model.patch_side = {patch_side} does not divide the latents' side of {latent_side} (ingest.image_side_px "
            f"{side}, halved {halvings} times by autoencoder.preset {config.preset}); take a smaller one"
        )
        return
    needed = (latent_side // patch_side) ** 2 + NUM_TOKENS_AROUND
    if params.encode.row_length < needed:
        yield (
            f"encode.row_length = {params.encode.row_length} is too short for any image, which takes {needed} positions with "
            "the tokens around it; take a longer one, or a larger train.model.patch_side"
        )
    for field, smallest, wanted in (
        ("gan_weight", SMALLEST_FOR_DISCRIMINATOR_PX, bool(config.loss.gan_weight)),
        ("lpips_weights", SMALLEST_FOR_LPIPS_PX, bool(config.loss.lpips_weights)),
    ):
        if wanted and side < smallest:
            yield (
                f"autoencoder.loss.{field} = {getattr(config.loss, field)!r} needs images of {smallest} px at least, and "
                f"ingest.image_side_px is {side}; leave the term out"
            )


def _of_the_metrics(params: Params) -> Iterator[str]:
    named = [
        ("register.compare", params.register.compare),
        *((f"register.floors.{key}", key) for key in params.register.floors),
    ]
    for path, metric in named:
        if metric_of(metric) is None:
            (near,) = difflib.get_close_matches(metric, METRICS, n=1, cutoff=0)
            yield f"{path} = {metric!r} is no metric of the evaluation; did you mean {near}?"
