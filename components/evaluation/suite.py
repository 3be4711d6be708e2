"""All that is measured of a trained model: prose, diffusion losses, pictures from prompts and captions of pictures.

What does not apply to the corpora (no scenes, so nothing a classifier could read; no prose; no images) is left out, aloud.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from components.data.demonstration.scenes import Pair
from components.evaluation import language
from components.evaluation.captions.measure import measure_captions
from components.evaluation.config import EvaluateConfig
from components.evaluation.diffusion import error_of_mean, measure_diffusion, target_error, x_0_error
from components.evaluation.distribution.measure import measure_distribution
from components.evaluation.generated import held_out_pictures, show_generated
from components.evaluation.guidance import measure_guidance
from components.evaluation.held_out import HeldOut
from components.evaluation.memorisation import measure_memorisation
from components.evaluation.perplexity import measure_perplexity
from components.evaluation.pretrained.clip import measure_clip_score
from components.evaluation.pretrained.inception import measure_fid
from components.evaluation.results import EvaluationTarget, Results
from components.evaluation.retrieval import measure_retrieval
from components.evaluation.scenes.digit_classifier import DigitClassifier
from components.evaluation.scenes.measure import measure_scenes
from components.evaluation.training_facts import TrainingFacts
from model.diffusion.schedules import times_of_equal_snr
from model.transfusion import Transfusion


def measure(
    target: EvaluationTarget, held_out: HeldOut, training: TrainingFacts, kept_out: Sequence[Pair], config: EvaluateConfig
) -> Results:
    """Everything that applies to the corpora. kept_out: digit-colour pairs that no scene shows."""
    results = Results()
    measure_language(results, target.model, held_out, training)
    measure_perplexity(results, held_out, config)
    if held_out.images:
        measure_losses(results, target.model, held_out, config)
        measure_retrieval(results, target, held_out, config)
        classifier = None
        if held_out.scenes:
            classifier = measure_scenes(results, target, held_out, training, kept_out, config)
        else:
            results.notes.append("the corpora hold no digit scenes: no classifier reads the generated pictures")
        measure_pictures(results, target, held_out, training, classifier, config)
        measure_captions(results, target, held_out, training, config)
    else:
        results.notes.append("no held-out document has an image: pictures, captions and diffusion losses are not measured")
    results.find_intervals(config.seed)
    results.leave_out_what_is_no_number()
    return results


def measure_language(results: Results, model: Transfusion, held_out: HeldOut, training: TrainingFacts) -> None:
    """Bits per byte of the model, of compressors and of a byte 5-gram."""
    if not held_out.texts:
        results.notes.append("no held-out document is text alone: bits per byte are not measured")
        return
    data = language.joined_bytes([document.text for document in held_out.texts])
    bits_per_byte, items = language.model_bits_per_byte(model, held_out.texts)
    results.add_items("text/bits_per_byte", items, bits_per_byte)
    results.metrics["text/xz_bits_per_byte"] = language.xz_bits_per_byte(data)
    results.metrics["text/zstd_bits_per_byte"] = language.zstd_bits_per_byte(data)
    results.metrics["text/ppmd_bits_per_byte"] = language.ppmd_bits_per_byte(data)
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
    results.add_items("image/diffusion_loss", losses.documents.of_all(), float(np.mean(losses.all)))
    results.metrics["image/x0_error_of_mean"] = error_of_mean(images)
    for number, (time, error) in enumerate(zip(x_0.times, x_0.all, strict=True)):
        results.add_items(f"image/x0_error/{time:g}", x_0.documents.of_all(number), error)
    for number, (time, right, wrong) in enumerate(zip(x_0.times, x_0.right or (), x_0.wrong or (), strict=False)):
        results.add_items(f"conditioning/wrong_caption_x0_gap/{time:g}", x_0.documents.gap(number), wrong - right)
    if losses.right is not None and losses.wrong is not None:
        gap = float(np.mean(losses.wrong) - np.mean(losses.right))
        results.add_items("conditioning/wrong_caption_gap", losses.documents.gap(), gap)
    else:
        results.notes.append("held-out images lack differing captions: the wrong-caption gap is not measured")


def measure_pictures(
    results: Results,
    target: EvaluationTarget,
    held_out: HeldOut,
    training: TrainingFacts,
    classifier: DigitClassifier | None,
    config: EvaluateConfig,
) -> None:
    """Pictures from held-out captions: how far from held-out ones, how near to training ones, and so by guidance."""
    pictures = held_out_pictures(results, target, held_out, config)
    if pictures is None:
        return
    if classifier is None:
        show_generated(results, pictures)
    reference = measure_distribution(results, target, pictures, training, config.seed)
    measure_fid(results, target, pictures, training, config.weights.inception, config.seed)
    measure_clip_score(results, target, pictures, config.weights.clip)
    measure_memorisation(results, target, pictures, training, config.memorisation, config.seed)
    measure_guidance(results, target, held_out, pictures, reference, classifier, config)
