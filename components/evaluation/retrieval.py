"""Retrieval by the model's own likelihood: the right caption for an image, and the right image for a caption, among a few.

Held-out documents of one image and a caption stand in groups whose captions and images all differ, and every image of a group
meets every caption of it. Captions are ranked by their likelihood behind the image, images by their diffusion loss behind the
caption (a diffusion classifier, Li et al., arXiv 2303.16203), with the same noise for an image under every caption.

Some captions are unlikely and some images are hard to denoise, whatever they stand beside. So what is ranked is how much lower
a loss is in a pair than it is for that caption, or that image, on average over the group. No further pass is needed for it. An
image's losses are compared by their logarithms, level by level: in shares of its own loss, whatever weight the prediction type
gives a level. (The logarithm of a squared error is the likelihood of a normal error whose size is not known.)

Legend: T noise levels, G groups, S documents of a group.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from components.evaluation.config import EvaluateConfig, RetrievalConfig
from components.evaluation.diffusion import squared_error, target_error
from components.evaluation.held_out import HeldOut, ImageDocument, Stored, are_alike
from components.evaluation.intervals import items_of
from components.evaluation.layout import caption_first, image_first
from components.evaluation.likelihood import text_nats
from components.evaluation.results import EvaluationTarget, Results
from core.random import rank_of, seed_of
from model.diffusion.schedules import times_of_equal_snr
from model.transfusion import Transfusion

# Of the noise's key: retrieval's noise is not that of the held-out losses.
STREAM = 91
# Padded row positions of one forward pass.
MAX_POSITIONS = 2048

Group = list[ImageDocument]


def measure_retrieval(results: Results, target: EvaluationTarget, held_out: HeldOut, config: EvaluateConfig) -> None:
    """How often the right one of a group has the best score, each way."""
    retrieval = config.retrieval
    groups = groups_of(held_out.images, retrieval, config.seed)
    if not groups:
        results.notes.append(
            "no group of held-out images that differ, and whose captions do, can be made "
            f"(evaluate.retrieval.group_size = {retrieval.group_size}): retrieval is not measured"
        )
        return
    names = [document.name for group in groups for document in group]
    nats = caption_nats(target.model, groups)
    losses = image_losses(target.model, groups, retrieval.noise_levels, config.seed)
    for key, found in (("caption_at_1", nats), ("image_at_1", np.log(losses).sum(axis=0))):
        results.add_items(f"retrieval/{key}", items_of(names, hits(less_average(found)).ravel(), np.ones(len(names))))
    # An item each, as the two have, so that it stands beside them with an interval of its own, which has no width.
    results.add_items("retrieval/chance", items_of(names, np.ones(len(names)), np.full(len(names), retrieval.group_size)))


def groups_of(documents: Sequence[ImageDocument], config: RetrievalConfig, seed: int) -> list[Group]:
    """At most num_groups whole groups; seed and names decide which document is in which, whatever order they come in."""
    groups: list[Group] = []
    for document in sorted(documents, key=lambda one: rank_of(seed, one.name)):
        if document.caption is None:
            continue
        open_groups = (group for group in groups if len(group) < config.group_size)
        fitting = (group for group in open_groups if not any(are_alike(document, other) for other in group))
        if (group := next(fitting, None)) is None:
            groups.append(group := [])
        group.append(document)
    return [group for group in groups if len(group) == config.group_size][: config.num_groups]


def caption_nats(model: Transfusion, groups: Sequence[Group]) -> np.ndarray:
    """float64 [G, S, S]: of each image (down) the nats of each caption (across) and of its end behind it."""
    stored = [
        image_first(image.stored, caption.stored.ids, model.config) for group in groups for image in group for caption in group
    ]
    nats = text_nats(model, stored, max_positions=MAX_POSITIONS, after_image=True).by_document
    return nats.reshape(len(groups), len(groups[0]), -1)


def image_losses(model: Transfusion, groups: Sequence[Group], noise_levels: Sequence[float], seed: int) -> np.ndarray:
    """float64 [T, G, S, S]: at each noise level, behind each caption (down) the squared error of each image (across)."""
    size = len(groups[0])
    stored: list[Stored] = []
    image: list[int] = []
    for number, group in enumerate(groups):
        stored += [caption_first(one.stored, caption.stored.ids, model.config) for caption in group for one in group]
        image += [number * size + place for _ in group for place in range(size)]
    losses = [
        squared_error(
            model,
            stored,
            time,
            target_error,
            seed=seed_of(seed, STREAM, number),
            max_positions=MAX_POSITIONS,
            first_image=image,
        ).by_document
        for number, time in enumerate(times_of_equal_snr(model.config.process, noise_levels))
    ]
    return np.array(losses).reshape(len(losses), len(groups), size, size)


def less_average(losses: np.ndarray) -> np.ndarray:
    """How much lower each candidate's loss is in a pair than on average over the group's queries. [G, S, S] -> [G, S, S]."""
    return losses - losses.mean(axis=1, keepdims=True)


def hits(losses: np.ndarray) -> np.ndarray:
    """Which queries (down) have their lowest loss at their own candidate (across): 1, 0, or its part of a tie. -> [G, S].

    A model that diverged has losses that are no numbers, and finds nothing.
    """
    own = np.diagonal(losses, axis1=1, axis2=2)[..., None]
    missed = (losses < own).any(axis=2) | ~np.isfinite(losses).all(axis=2)
    return np.where(missed, 0.0, 1 / np.maximum((losses == own).sum(axis=2), 1))
