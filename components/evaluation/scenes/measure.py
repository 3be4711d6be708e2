"""The demonstration's own figures: digit scenes that a classifier reads, and captions that name their objects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from components.data.demonstration.scenes import Pair, SceneObject, describe
from components.evaluation.config import EvaluateConfig
from components.evaluation.held_out import HeldOut, ImageDocument
from components.evaluation.images import reconstruct
from components.evaluation.results import NUM_SHOWN, EvaluationTarget, GeneratedImage, Results
from components.evaluation.sampling import images_of
from components.evaluation.scenes.composition import measure_composition, measure_pairs_never_shown
from components.evaluation.scenes.digit_classifier import DigitClassifier, train_classifier
from components.evaluation.scenes.prompts import Prompt, kept_out_prompts, only_pairs, seen_prompts
from components.evaluation.scenes.scores import SceneScores, score_captions, score_scenes
from components.evaluation.training_facts import TrainingFacts
from core.png import decode_png


def measure_scenes(
    results: Results,
    target: EvaluationTarget,
    held_out: HeldOut,
    training: TrainingFacts,
    kept_out: Sequence[Pair],
    config: EvaluateConfig,
) -> DigitClassifier:
    """Text -> image as a classifier reads it, on all prompts and on new ones. Returns the classifier."""
    classifier = measure_classifier(results, target, held_out, training, config)
    prompts, read = measure_generation(results, target, held_out, classifier, kept_out, config)
    measure_new_prompts(results, prompts, read, training)
    return classifier


def measure_classifier(
    results: Results, target: EvaluationTarget, held_out: HeldOut, training: TrainingFacts, config: EvaluateConfig
) -> DigitClassifier:
    """Train the classifier on scans of no held-out scene; see how well it reads those, before and after the autoencoder."""
    scenes = held_out.scenes[: config.num_captions]
    shared = {scan for document in scenes for scan in document.scans} & set(training.scans)
    assert not shared, f"scans {sorted(shared)} are in held-out and in other scenes"
    classifier = train_classifier(training.scans, config.digit_classifier, config.seed)
    real, names = np.stack([decode_png(document.pictures[0]) for document in scenes]), _names(scenes)
    truth = [document.objects or frozenset() for document in scenes]
    read = classifier.read(real)
    scores = score_scenes(truth, read)
    results.add("text_to_image/judge_on_real", scores.objects, names)
    results.add("text_to_image/judge_scenes_on_real", scores.scenes, names)
    read_again = classifier.read(reconstruct(target.autoencoder, real))
    results.add("text_to_image/judge_on_reconstructed", score_scenes(truth, read_again).objects, names)
    measure_composition(results, "composition_on_real", truth, read, names)
    measure_composition(results, "composition_on_reconstructed", truth, read_again, names)
    return classifier


def measure_generation(
    results: Results,
    target: EvaluationTarget,
    held_out: HeldOut,
    classifier: DigitClassifier,
    kept_out: Sequence[Pair],
    config: EvaluateConfig,
) -> tuple[list[Prompt], list[frozenset[SceneObject]]]:
    """Text -> image, for seen and for kept-out pairs; returns the prompts of seen pairs and what was read in their pictures."""
    seen = seen_prompts(config.num_seen_scenes, kept_out, config.seed)
    unseen = kept_out_prompts(config.num_kept_out_scenes, kept_out, config.seed)
    prompts = [*seen, *unseen]
    images = images_of(target, held_out, [prompt.text for prompt in prompts], config)
    read, asked = classifier.read(images), [prompt.objects for prompt in prompts]
    names = [f"prompt {number}: {prompt.text}" for number, prompt in enumerate(prompts)]
    for name, share in zip(SceneScores._fields, score_scenes(asked[: len(seen)], read[: len(seen)]), strict=True):
        results.add(f"text_to_image/{name}_right", share, names[: len(seen)])
    measure_composition(results, "composition", asked[: len(seen)], read[: len(seen)], names[: len(seen)])
    if unseen:
        counted = [only_pairs(objects, kept_out) for objects in asked[len(seen) :]]
        scores = score_scenes(asked[len(seen) :], read[len(seen) :], counted)
        results.add("text_to_image/objects_right_kept_out", scores.objects, names[len(seen) :])
        results.add("text_to_image/scenes_right_kept_out", scores.scenes, names[len(seen) :])
        measure_pairs_never_shown(results, asked[len(seen) :], read[len(seen) :], kept_out, names[len(seen) :])
    else:
        results.notes.append("no digit-colour pair was kept out of training: generating such pairs is not measured")
    for group, start, chosen in (
        ("pairs seen in training", 0, seen),
        ("with a pair kept out of training", len(seen), unseen),
    ):
        results.generated += [
            _generated_image(group, images[start + i], prompt, read[start + i]) for i, prompt in enumerate(chosen[:NUM_SHOWN])
        ]
    return seen, read[: len(seen)]


def measure_new_prompts(
    results: Results, prompts: Sequence[Prompt], read: Sequence[frozenset[SceneObject]], training: TrainingFacts
) -> None:
    """How many prompts are no training document's caption, and the objects right among those."""
    new = [number for number, prompt in enumerate(prompts) if not training.knows(prompt.text)]
    results.metrics["text_to_image/new_prompts"] = len(new) / len(prompts)
    if new:
        scores = score_scenes([prompts[number].objects for number in new], [read[number] for number in new])
        names = [f"prompt {number}: {prompts[number].text}" for number in new]
        results.add("text_to_image/objects_right_new_prompts", scores.objects, names)


def measure_scene_captions(
    results: Results, scenes: Sequence[ImageDocument], generated: Sequence[str], training: TrainingFacts
) -> list[bool | None]:
    """Image -> text: the objects that captions name, on all scenes and on new ones. Returns whether each caption is right."""
    truth, names = [scene.objects or frozenset() for scene in scenes], _names(scenes)
    scores = score_captions(generated, truth)
    results.add("image_to_text/objects_right", scores.objects, names)
    results.add("image_to_text/scenes_right", scores.scenes, names)
    results.add("image_to_text/captions_readable", scores.readable, names)
    measure_new_captions(results, scenes, generated, training)
    return [bool(right) for right in scores.scenes.right]


def measure_new_captions(
    results: Results, scenes: Sequence[ImageDocument], generated: Sequence[str], training: TrainingFacts
) -> None:
    """How many scenes have a caption that no training document has, and the objects named rightly in those."""
    new = [(text, scene) for text, scene in zip(generated, scenes, strict=True) if not training.knows(scene.caption or "")]
    results.metrics["image_to_text/new_captions"] = len(new) / len(scenes)
    if new:
        scores = score_captions([text for text, _ in new], [scene.objects or frozenset() for _, scene in new])
        results.add("image_to_text/objects_right_new_captions", scores.objects, _names([scene for _, scene in new]))


def _generated_image(group: str, image: np.ndarray, prompt: Prompt, read: frozenset[SceneObject]) -> GeneratedImage:
    return GeneratedImage(group, image, prompt.text, describe(tuple(read), 1) if read else "nothing", read == prompt.objects)


def _names(documents: Sequence[ImageDocument]) -> list[str]:
    return [document.name for document in documents]
