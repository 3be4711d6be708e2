"""Settings of several sections that cannot be true together, found before any work.

What one section can tell by itself stands in its configuration. A given autoencoder and the corpora are files, which the
stages look at.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path

from components.data.config import NO_IMAGES
from components.evaluation.metrics import METRICS, Axis, Content, Metric, axis_of, metric_of, needs
from components.evaluation.pretrained.figures import NEEDS_WEIGHTS
from components.training.autoencoder.config import SMALLEST_FOR_DISCRIMINATOR_PX, SMALLEST_FOR_LPIPS_PX
from components.training.transformer.config import Figure
from model.latents.sizes import PRESETS
from pipelines import paths
from pipelines.sections import Params

TEXT: frozenset[Content] = frozenset({"text"})
ANYTHING: frozenset[Content] = frozenset({"captions", "images", "text"})
# What documents of a format can hold, where that is not anything but scenes.
CONTENTS: dict[str, frozenset[Content]] = {
    "digit_scenes": frozenset({"scenes", "captions", "images"}),
    "python_prose": TEXT,
    **dict.fromkeys(("webdataset", "coco", "image_folder"), frozenset[Content]({"captions", "images"})),
}
# What a held-out figure is measured on, where that is not anything.
FIGURE_NEEDS: dict[Figure, Content] = {"image": "images", "text_after_image": "captions", "caption_gap": "captions"}
# Around an image alone: begin and end of the document and of the image.
NUM_TOKENS_AROUND = 4
# Where the levels stand at which the figures of a curve are measured.
LEVELS: dict[Axis, str] = {
    "noise": "evaluate.x_0_error_times",
    "guidance": "evaluate.guidance_sweep.scales",
}


def contradictions(params: Params) -> Iterator[str]:
    """One sentence each: the dotted path, its value, what it contradicts, and what to do."""
    if not params.autoencoder.pretrained:
        yield from _of_the_images(params)
    yield from _of_the_metrics(params)
    yield from _of_the_selection(params)
    yield from _of_the_start(params)


def _of_the_images(params: Params) -> Iterator[str]:
    side, config = params.ingest.image_side_px, params.autoencoder
    halvings = PRESETS[config.preset].num_halvings
    if side % 2**halvings:
        yield (
            f"ingest.image_side_px = {side} cannot be halved {halvings} times, as autoencoder.preset {config.preset} does; "
            f"take a multiple of {2**halvings}"
        )
        # What follows divides by this side, and would be wrong as a consequence.
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
    # Here and not when register reads them: by then hours of training have gone by.
    known, config, held = _measured(params), params.register, _contents(params)
    for field, bounds in (("bounds", config.bounds), ("default_bounds", config.default_bounds)):
        for key in bounds:
            yield from _unknown(f"register.{field}: {key!r}", key, known)
    for key in config.compare:
        yield from _unknown(f"register.compare: {key!r}", key, known)
    for key in config.compare:
        if key in known and not known[key].compares:
            yield (
                f"register.compare: {key!r} does not compare two models item by item; take a metric that does, or give this "
                "one a value in register.bounds"
            )
    for key in config.bounds:
        if needs(key) not in held:
            yield (
                f"register.bounds: {key!r} is measured on {needs(key)}, which no corpus of ingest.corpora can hold; take it "
                "out, or move it to register.default_bounds, which are left out where they cannot be measured"
            )
        for beginning, name in NEEDS_WEIGHTS.items():
            if key.startswith(beginning) and not getattr(params.evaluate.weights, name):
                yield f"register.bounds: {key!r} is measured where evaluate.weights.{name} names a path, and it is empty"
    if not held & {needs(key) for key in config.compare}:
        yield (
            f"register.compare: no corpus of ingest.corpora can hold what {', '.join(config.compare)} "
            f"{'are' if len(config.compare) > 1 else 'is'} measured on; add a metric that yours have"
        )


def _of_the_selection(params: Params) -> Iterator[str]:
    """What documents do hold, as against what they can, the training looks at before its first step."""
    config = params.train.selection
    needed = FIGURE_NEEDS.get(config.figure)
    if config.is_used and needed and needed not in _contents(params):
        yield (
            f"train.selection.figure = {config.figure} is measured on {needed}, which no corpus of ingest.corpora can hold; "
            "take text"
        )


def _of_the_start(params: Params) -> Iterator[str]:
    """What the graph writes is new after every run, which would make the next one begin again."""
    given = {
        "ingest.tokenizer": params.ingest.tokenizer,
        "autoencoder.pretrained": params.autoencoder.pretrained,
        "train.pretrained": params.train.pretrained,
    }
    for key, at in given.items():
        # Also through a link.
        if at and any(Path(at).resolve().is_relative_to(written.resolve()) for written in paths.WRITTEN):
            yield f"{key} = {at} is written by the pipeline itself; copy it to a folder of its own, and name that one"


def _contents(params: Params) -> frozenset[Content]:
    """What documents of the corpora can hold, by their formats; whether they do is known when they have been read."""
    found: set[Content] = set()
    for corpus in params.ingest.corpora:
        found |= TEXT if corpus.images == NO_IMAGES else CONTENTS.get(corpus.format, ANYTHING)
    return frozenset(found)


def _measured(params: Params) -> dict[str, Metric]:
    """Every figure that the evaluation can have, those of a curve once for each noise level or scale that is measured."""
    measured = {
        "noise": params.evaluate.x_0_error_times,
        "guidance": params.evaluate.guidance_sweep.scales,
    }
    return {
        key.replace("*", f"{value:g}"): metric
        for key, metric in METRICS.items()
        for value in (measured[axis_of(key)] if "*" in key else [0.0])
    }


def _unknown(path: str, key: str, known: Mapping[str, Metric]) -> Iterator[str]:
    if key not in known:
        near = difflib.get_close_matches(key, known, n=3, cutoff=0.4)
        meant = f"did you mean {' or '.join(near)}?" if near else "components/evaluation/metrics.py lists them"
        of_curve = "*" not in key and metric_of(key) is not None
        where = f": {LEVELS[axis_of(key)]} does not have {key.rpartition('/')[2]}" if of_curve else ""
        yield f"{path} is no metric of the evaluation{where}; {meant}"
