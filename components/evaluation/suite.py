"""All that is measured of a trained model: prose, diffusion losses, pictures from prompts and captions of pictures.

What does not apply to the corpora (no scenes, so nothing a classifier could read; no prose; no images) is left out, aloud.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np

from components.data.demonstration.scenes import Pair, SceneObject, describe
from components.evaluation import language
from components.evaluation.captions import caption_images
from components.evaluation.config import EvaluateConfig
from components.evaluation.diffusion import (
    DiffusionLosses,
    error_of_mean,
    measure_diffusion,
    target_error,
    times_of_equal_snr,
    x_0_error,
)
from components.evaluation.digit_classifier import DigitClassifier, train_classifier
from components.evaluation.held_out import HeldOut, ImageDocument, TrainingFacts
from components.evaluation.images import generate_images, reconstruct
from components.evaluation.prompts import Prompt, kept_out_prompts, only_pairs, seen_prompts
from components.evaluation.scores import SceneScores, Share, score_captions, score_scenes
from core.metric_keys import standard_error_key
from core.png import decode_png
from core.tokenizer import TextTokenizer
from model.config import ModelConfig
from model.diffusion.solvers import chosen_solver
from model.generation.eager import TorchEngine
from model.generation.requests import SamplingOptions
from model.latents.autoencoder import Autoencoder
from model.transfusion import Transfusion

# Shown in the report, the first ones as they come.
NUM_SHOWN = 12
# Captions may be this many tokens longer than the longest true one.
CAPTION_MARGIN_TOKENS = 8


class EvaluationTarget(NamedTuple):
    """What is evaluated."""

    model: Transfusion
    autoencoder: Autoencoder
    tokenizer: TextTokenizer


class GeneratedImage(NamedTuple):
    """A picture generated from a prompt."""

    group: str
    """A heading."""
    image: np.ndarray
    prompt: str
    read: str
    """What the classifier saw, or ""."""
    right: bool | None
    """Whether the whole scene is; None where not scored."""


class Captioned(NamedTuple):
    """A held-out picture, its caption in the corpus, and the generated one."""

    image: np.ndarray
    caption: str
    generated: str
    right: bool | None
    """None where not scored."""


@dataclass
class Results:
    """The figures, and what is to be shown beside them."""

    metrics: dict[str, float] = field(default_factory=dict)
    """By the keys of METRICS."""
    notes: list[str] = field(default_factory=list)
    """What was not measured, and why."""
    generated: list[GeneratedImage] = field(default_factory=list)
    captions: list[Captioned] = field(default_factory=list)
    diffusion: DiffusionLosses | None = None
    """Of the network's own target, at times of its own path."""
    x_0: DiffusionLosses | None = None
    """Of the implied clean latent, at times of the cosine schedule."""

    def add(self, key: str, share: Share) -> None:
        """Enter a share, and its standard error where there is one."""
        self.metrics[key] = share.value
        if share.standard_error is not None:
            self.metrics[standard_error_key(key)] = share.standard_error


def measure(
    target: EvaluationTarget, held_out: HeldOut, training: TrainingFacts, kept_out: Sequence[Pair], config: EvaluateConfig
) -> Results:
    """Everything that applies to the corpora. kept_out: digit-colour pairs that no scene shows."""
    results = Results()
    measure_language(results, target.model, held_out, training)
    if not held_out.images:
        results.notes.append("no held-out document has an image: pictures, captions and diffusion losses are not measured")
        return results
    measure_losses(results, target.model, held_out, config)
    if held_out.scenes:
        classifier = measure_classifier(results, target, held_out, training, config)
        prompts, read = measure_generation(results, target, held_out, classifier, kept_out, config)
        measure_new_prompts(results, prompts, read, training)
    else:
        results.notes.append("the corpora hold no digit scenes: pictures and captions are shown and not scored")
        show_generated(results, target, held_out, config)
    captions = measure_captions(results, target, held_out, config)
    if held_out.scenes:
        measure_new_captions(results, held_out.scenes[: config.num_captions], captions, training)
    return results


def measure_language(results: Results, model: Transfusion, held_out: HeldOut, training: TrainingFacts) -> None:
    """Bits per byte of the model, of xz -9 and of a byte 5-gram."""
    if not held_out.texts:
        results.notes.append("no held-out document is text alone: bits per byte are not measured")
        return
    data = language.joined_bytes([document.text for document in held_out.texts])
    results.metrics["text/bits_per_byte"] = language.model_bits_per_byte(model, held_out.texts)
    results.metrics["text/xz_bits_per_byte"] = language.xz_bits_per_byte(data)
    train = language.joined_bytes(training.texts)
    if len(train) >= language.ORDER:
        results.metrics["text/ngram_bits_per_byte"] = language.ngram_bits_per_byte(train, data)


def measure_losses(results: Results, model: Transfusion, held_out: HeldOut, config: EvaluateConfig) -> None:
    """Held-out diffusion loss, the implied clean latent's error by noise level, and the gaps that a wrong caption makes."""
    images = held_out.images[: config.num_loss_images]
    losses = measure_diffusion(model, images, config.loss_times, seed=config.seed, error=target_error)
    times = times_of_equal_snr(model.config.process, config.x_0_error_times)
    # Measured where this model's path has the noise of those times, and named by them: models of other paths compare.
    x_0 = measure_diffusion(model, images, times, seed=config.seed, error=x_0_error)._replace(times=config.x_0_error_times)
    results.diffusion, results.x_0 = losses, x_0
    results.metrics["image/diffusion_loss"] = float(np.mean(losses.all))
    results.metrics["image/x0_error_of_mean"] = error_of_mean(images)
    for time, error in zip(x_0.times, x_0.all, strict=True):
        results.metrics[f"image/x0_error/{time:g}"] = error
    for time, right, wrong in zip(x_0.times, x_0.right or (), x_0.wrong or (), strict=False):
        results.metrics[f"conditioning/wrong_caption_x0_gap/{time:g}"] = wrong - right
    if losses.right is not None and losses.wrong is not None:
        results.metrics["conditioning/wrong_caption_gap"] = float(np.mean(losses.wrong) - np.mean(losses.right))
    else:
        results.notes.append("held-out images lack differing captions: the wrong-caption gap is not measured")


def measure_classifier(
    results: Results, target: EvaluationTarget, held_out: HeldOut, training: TrainingFacts, config: EvaluateConfig
) -> DigitClassifier:
    """Train the classifier on scans of no held-out scene; see how well it reads those, before and after the autoencoder."""
    scenes = held_out.scenes[: config.num_captions]
    shared = {scan for document in scenes for scan in document.scans} & set(training.scans)
    assert not shared, f"scans {sorted(shared)} are in held-out and in other scenes"
    classifier = train_classifier(training.scans, config.digit_classifier, config.seed)
    real = np.stack([decode_png(document.pictures[0]) for document in scenes])
    truth = [document.objects or frozenset() for document in scenes]
    scores = score_scenes(truth, classifier.read(real))
    results.add("text_to_image/judge_on_real", scores.objects)
    results.add("text_to_image/judge_scenes_on_real", scores.scenes)
    reconstructed = score_scenes(truth, classifier.read(reconstruct(target.autoencoder, real)))
    results.add("text_to_image/judge_on_reconstructed", reconstructed.objects)
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
    for name, share in zip(SceneScores._fields, score_scenes(asked[: len(seen)], read[: len(seen)]), strict=True):
        results.add(f"text_to_image/{name}_right", share)
    if unseen:
        counted = [only_pairs(objects, kept_out) for objects in asked[len(seen) :]]
        scores = score_scenes(asked[len(seen) :], read[len(seen) :], counted)
        results.add("text_to_image/objects_right_kept_out", scores.objects)
        results.add("text_to_image/scenes_right_kept_out", scores.scenes)
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
    new = [(prompt.objects, found) for prompt, found in zip(prompts, read, strict=True) if not training.knows(prompt.text)]
    results.metrics["text_to_image/new_prompts"] = len(new) / len(prompts)
    if new:
        results.add("text_to_image/objects_right_new_prompts", score_scenes(*zip(*new, strict=True)).objects)


def show_generated(results: Results, target: EvaluationTarget, held_out: HeldOut, config: EvaluateConfig) -> None:
    """Pictures from held-out captions, where nothing can score them."""
    prompts = [document.caption for document in held_out.images if document.caption is not None][:NUM_SHOWN]
    if prompts:
        images = images_of(target, held_out, prompts, config)
        results.generated = [
            GeneratedImage("held-out captions", image, text, "", None) for image, text in zip(images, prompts, strict=True)
        ]


def measure_captions(results: Results, target: EvaluationTarget, held_out: HeldOut, config: EvaluateConfig) -> list[str]:
    """Image -> text over held-out pictures; scored where their objects are known. Returns the captions, generated."""
    documents = (
        held_out.scenes[: config.num_captions] or [one for one in held_out.images if one.caption is not None][:NUM_SHOWN]
    )
    if not documents:
        return []
    room = max(len(target.tokenizer.encode(document.caption or "")) for document in documents) + CAPTION_MARGIN_TOKENS
    generated = caption_images(
        TorchEngine(target.model),
        target.tokenizer,
        [document.stored.latents[0] for document in documents],
        max_new_tokens=room,
        seed=config.seed,
        num_slots=config.batch_size,
    )
    right: list[bool | None] = [None] * len(documents)
    if held_out.scenes:
        truth = [document.objects or frozenset() for document in documents]
        scores = score_captions(generated, truth)
        results.add("image_to_text/objects_right", scores.objects)
        results.add("image_to_text/scenes_right", scores.scenes)
        results.add("image_to_text/captions_readable", scores.readable)
        right = [score_captions([text], [objects]).scenes.value == 1 for text, objects in zip(generated, truth, strict=True)]
    results.captions = [_captioned(*entry) for entry in list(zip(documents, generated, right, strict=True))[:NUM_SHOWN]]
    return generated


def measure_new_captions(
    results: Results, scenes: Sequence[ImageDocument], generated: Sequence[str], training: TrainingFacts
) -> None:
    """How many scenes have a caption that no training document has, and the objects named rightly in those."""
    new = [
        (text, scene.objects or frozenset())
        for text, scene in zip(generated, scenes, strict=True)
        if not training.knows(scene.caption or "")
    ]
    results.metrics["image_to_text/new_captions"] = len(new) / len(scenes)
    if new:
        results.add("image_to_text/objects_right_new_captions", score_captions(*zip(*new, strict=True)).objects)


def images_of(target: EvaluationTarget, held_out: HeldOut, prompts: Sequence[str], config: EvaluateConfig) -> np.ndarray:
    """One picture a prompt, of the held-out pictures' size: uint8 [N, side, side, 3]."""
    _, height, width = held_out.images[0].stored.latents.shape[1:]
    return generate_images(
        TorchEngine(target.model),
        target.autoencoder,
        target.tokenizer,
        prompts,
        sampling_options(target.model.config, config),
        image_shape=(height, width),
        seed=config.seed,
        num_slots=config.batch_size,
    )


def sampling_options(model: ModelConfig, config: EvaluateConfig) -> SamplingOptions:
    """How pictures are generated here, the solver by its own name: what the figures of pictures hold for."""
    solver = chosen_solver(model.process, "auto")
    return SamplingOptions(num_steps=config.num_solver_steps, guidance_scale=config.guidance_scale, solver=solver)


def sampling_facts(model: ModelConfig, config: EvaluateConfig) -> dict[str, Any]:
    """`sampling_options` by name, for a manifest."""
    return asdict(sampling_options(model, config))


def _generated_image(group: str, image: np.ndarray, prompt: Prompt, read: frozenset[SceneObject]) -> GeneratedImage:
    return GeneratedImage(group, image, prompt.text, describe(tuple(read), 1) if read else "nothing", read == prompt.objects)


def _captioned(document: ImageDocument, generated: str, right: bool | None) -> Captioned:
    return Captioned(decode_png(document.pictures[0]), document.caption or "", generated, right)
