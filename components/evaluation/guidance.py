"""What guidance does to pictures: every score of generated pictures over several scales, with the same prompts and noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from components.evaluation.config import EvaluateConfig
from components.evaluation.distribution.features import num_features
from components.evaluation.distribution.measure import Reference, enter, fewest_pictures
from components.evaluation.generated import HeldOutPictures, prompts_of
from components.evaluation.held_out import HeldOut, ImageDocument
from components.evaluation.intervals import items_of
from components.evaluation.results import EvaluationTarget, Results
from components.evaluation.sampling import images_of
from components.evaluation.scenes.digit_classifier import DigitClassifier
from components.evaluation.scenes.scores import score_scenes
from core.metric_keys import GENERATED_FOR
from core.text import plural


def measure_guidance(
    results: Results,
    target: EvaluationTarget,
    held_out: HeldOut,
    pictures: HeldOutPictures,
    reference: Reference | None,
    classifier: DigitClassifier | None,
    config: EvaluateConfig,
) -> None:
    """The scores of the pictures of the first held-out captions at each scale, at keys that end in it."""
    documents = pictures.documents[: config.guidance_sweep.num_prompts]
    if documents[0].caption is None:
        results.notes.append("held-out pictures have no captions, and guidance goes by those: it is not measured over scales")
        return
    # Without a reference there is a note on it already.
    if reference is not None and len(documents) < fewest_pictures(num_features(target.autoencoder)):
        each = plural(len(documents), "picture a scale is", "pictures a scale are")
        results.notes.append(f"{len(documents)} {each} too few for distances: guidance is measured without them")
        reference = None
    for scale in config.guidance_sweep.scales:
        if scale == config.guidance_scale:
            images = pictures.generated[: len(documents)]
        else:
            images = images_of(target, held_out, prompts_of(documents), replace(config, guidance_scale=scale))
        if classifier is not None:
            add_objects_right(results, f"guidance/objects_right/{scale:g}", classifier, documents, images)
        if reference is not None:
            enter(results, f"guidance/{{}}/{scale:g}", reference.space.of(images), reference, config.seed)
    results.facts["guidance"] = {"scale_used": config.guidance_scale, "num_prompts_of_a_scale": len(documents)}


def add_objects_right(
    results: Results, key: str, classifier: DigitClassifier, documents: list[ImageDocument], images: np.ndarray
) -> None:
    """The share of objects that the classifier reads rightly, of the documents whose objects are known."""
    known = [number for number, document in enumerate(documents) if document.objects]
    if known:
        share = score_scenes([documents[i].objects or frozenset() for i in known], classifier.read(images[known])).objects
        results.add_items(key, items_of([f"{GENERATED_FOR}{documents[i].name}" for i in known], share.right, share.counted))
