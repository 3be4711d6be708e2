"""The figures that the suite makes of its parts: gaps and errors, whose scans the classifier has seen, what is new."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from components.data.config import SplitShares
from components.data.demonstration.scenes import SceneObject, compose, load_scans, split_scans
from components.evaluation.config import (
    DigitClassifierConfig,
    EvaluateConfig,
    GuidanceSweepConfig,
    MemorisationConfig,
    RetrievalConfig,
    WeightsConfig,
)
from components.evaluation.diffusion import squared_error, x_0_error
from components.evaluation.held_out import HeldOut, ImageDocument, Stored
from components.evaluation.layout import caption_first
from components.evaluation.results import EvaluationTarget, Results
from components.evaluation.scenes import digit_classifier as classifier_module
from components.evaluation.scenes.digit_classifier import DigitClassifier, train_classifier
from components.evaluation.scenes.measure import measure_classifier, measure_new_captions, measure_new_prompts
from components.evaluation.scenes.prompts import seen_prompts
from components.evaluation.scenes.scores import score_scenes, share_of
from components.evaluation.suite import measure_losses
from components.evaluation.training_facts import TrainingFacts
from core.png import encode_png
from core.random import seed_of, words_of
from core.tokenizer import TextTokenizer
from model.config import ModelConfig
from model.diffusion.schedules import times_of_equal_snr
from model.latents.autoencoder import Autoencoder
from model.transfusion import Transfusion
from tests.components.evaluation.test_diffusion import document, one_image_error

SEED = 29
CONFIG = EvaluateConfig(
    seed=SEED,
    num_seen_scenes=3,
    num_kept_out_scenes=2,
    num_captions=5,
    num_pictures=4,
    num_training_pictures=9,
    num_loss_images=4,
    max_text_bytes=1000,
    guidance_scale=2.0,
    num_solver_steps=2,
    loss_times=(0.35, 0.8),
    x_0_error_times=(0.4, 0.98),
    batch_size=2,
    retrieval=RetrievalConfig(group_size=2, num_groups=1, noise_levels=(0.5,)),
    memorisation=MemorisationConfig(max_training_pictures=100, held_out_share=0.25),
    guidance_sweep=GuidanceSweepConfig(scales=(1.0, 2.0), num_prompts=3),
    digit_classifier=DigitClassifierConfig(max_steps=6, batch_size=16),
    weights=WeightsConfig(inception="", clip=""),
)
BY_LEVEL = ("image/x0_error", "conditioning/wrong_caption_x0_gap")
TIMED = [(time, seed_of(SEED, number)) for number, time in enumerate(CONFIG.loss_times)]
# At least one scan of every digit is in each split.
SCANS = split_scans(SplitShares(validation=0.3, test=0.4), 3)


def test_the_caption_gap_is_the_loss_under_another_caption_less_that_under_the_own(
    model: Transfusion, config: ModelConfig
) -> None:
    texts = [[20, 21], [30, 31, 32, 33], [40, 41], [20, 21], [50]]
    documents = [document(config, number, text, str(text)) for number, text in enumerate(texts)]
    results = Results()
    measure_losses(results, model, HeldOut([], documents), CONFIG)

    # The next caption that differs, round about, among the first num_loss_images.
    own, others = documents[:4], [documents[other] for other in (1, 2, 3, 1)]
    num_values = sum(entry.stored.latents.size for entry in own)

    def loss(captions: list[ImageDocument]) -> float:
        pairs = list(zip(own, captions, strict=True))
        return np.mean(
            [
                sum(
                    one_image_error(model, Stored(caption.stored.ids, entry.stored.latents), image, time, seed_of(SEED, number))
                    for image, (entry, caption) in enumerate(pairs)
                )
                / num_values
                for number, time in enumerate(CONFIG.loss_times)
            ]
        ).item()

    gap = loss(others) - loss(own)
    assert abs(gap) > 1e-3
    assert results.metrics["conditioning/wrong_caption_gap"] == pytest.approx(gap, rel=1e-3)
    assert results.metrics["image/diffusion_loss"] == pytest.approx(loss(own), rel=1e-4)

    # The clean latent's, a figure a level, at the model's own time of that level's signal-to-noise ratio.
    times = times_of_equal_snr(config.process, CONFIG.x_0_error_times)
    for number, (level, time) in enumerate(zip(CONFIG.x_0_error_times, times, strict=True)):
        right, wrong = (
            squared_error(
                model,
                [caption_first(entry.stored, one.stored.ids, config) for entry, one in zip(own, captions, strict=True)],
                time,
                x_0_error,
                seed=seed_of(SEED, number),
                max_positions=99,
            ).total
            / num_values
            for captions in (own, others)
        )
        assert results.metrics[f"image/x0_error/{level}"] == pytest.approx(right, rel=1e-4)
        assert results.metrics[f"conditioning/wrong_caption_x0_gap/{level}"] == pytest.approx(wrong - right, rel=1e-3)
    assert results.x_0 is not None and results.x_0.times == CONFIG.x_0_error_times
    assert_kept_document_by_document(results, model, own, others)


def assert_kept_document_by_document(
    results: Results, model: Transfusion, own: list[ImageDocument], others: list[ImageDocument]
) -> None:
    for key, items in results.items.items():
        assert items.names == tuple(entry.name for entry in own), key
        assert items.value == pytest.approx(results.metrics[key], rel=1e-4), key
    by_noise_level = [f"{name}/{level:g}" for name in BY_LEVEL for level in CONFIG.x_0_error_times]
    assert set(results.items) == {"image/diffusion_loss", "conditioning/wrong_caption_gap", *by_noise_level}
    right, wrong = (
        [
            np.mean([one_image_error(model, stored, image, time, key) for time, key in TIMED])
            for image, stored in enumerate(
                Stored(caption.stored.ids, entry.stored.latents) for entry, caption in zip(own, captions, strict=True)
            )
        ]
        for captions in (own, others)
    )
    assert results.items["image/diffusion_loss"].top.tolist() == pytest.approx(right, rel=1e-4)
    gap = np.subtract(wrong, right).tolist()
    assert results.items["conditioning/wrong_caption_gap"].top.tolist() == pytest.approx(gap, rel=1e-3, abs=1e-3)


def trained_on(scans: list[int], captions: Sequence[str] = ()) -> TrainingFacts:
    return TrainingFacts([], scans, frozenset(words_of(captions).tolist()))


def shown(scan: int) -> SceneObject:
    return SceneObject(int(load_scans().digit[scan]), "red", "top left")


def picture(number: int, scan: int) -> np.ndarray:
    return compose([shown(scan)], [scan], np.random.default_rng(number))


def scene(number: int, scan: int) -> ImageDocument:
    """A held-out picture of one scan."""
    stored = Stored(np.zeros(1, np.int64), np.zeros((1, 4, 16, 16), np.float32))
    return ImageDocument(
        f"c/{number}", stored, "a caption", (encode_png(picture(number, scan)),), frozenset({shown(scan)}), (scan,)
    )


@pytest.fixture
def target(model: Transfusion, tokenizer: TextTokenizer) -> EvaluationTarget:
    torch.manual_seed(2)
    shape = {"layers_per_block": 1, "latent_channels": 4, "norm_groups": 4, "sample_side_px": 32}
    return EvaluationTarget(model, Autoencoder.create(block_channels=(8, 8), **shape).eval(), tokenizer)


def without_other_scans(monkeypatch: pytest.MonkeyPatch, kept: list[int]) -> None:
    """Scans other than `kept` become no numbers: whoever looks at one of them in training has no numbers for weights."""
    scans = load_scans()
    intensity = np.full_like(scans.intensity, np.nan)
    intensity[kept] = scans.intensity[kept]
    monkeypatch.setattr(classifier_module, "load_scans", lambda: scans._replace(intensity=intensity))


def assert_same_weights(one: DigitClassifier, other: DigitClassifier) -> None:
    for (name, value), (_, wanted) in zip(one.state_dict().items(), other.state_dict().items(), strict=True):
        assert torch.equal(value, wanted), name


def test_the_classifier_has_seen_the_training_scans_alone(target: EvaluationTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    held_out = HeldOut([], [scene(number, int(scan)) for number, scan in enumerate(SCANS["test"][::40])])
    seen = SCANS["train"].tolist()
    wanted = train_classifier(seen, CONFIG.digit_classifier, SEED)
    without_other_scans(monkeypatch, seen)
    results = Results()
    classifier = measure_classifier(results, target, held_out, trained_on(seen), CONFIG)
    assert all(bool(value.isfinite().all()) for value in classifier.state_dict().values())
    assert_same_weights(classifier, wanted)


def test_the_classifiers_own_accuracy_is_measured_on_the_held_out_scenes_that_are_captioned(target: EvaluationTarget) -> None:
    documents = [scene(number, int(scan)) for number, scan in enumerate(SCANS["test"][:200:20])]
    # A classifier that can read, so that a picture's truth matters.
    config = dataclasses.replace(CONFIG, digit_classifier=DigitClassifierConfig(max_steps=60, batch_size=64))
    results = Results()
    classifier = measure_classifier(results, target, HeldOut([], documents), trained_on(SCANS["train"].tolist()), config)
    chosen = documents[: config.num_captions]
    images = np.stack([picture(number, one.scans[0]) for number, one in enumerate(chosen)])
    scores = score_scenes([one.objects or frozenset() for one in chosen], classifier.read(images))
    assert scores.objects.value >= 0.4
    for key, share in (("judge_on_real", scores.objects), ("judge_scenes_on_real", scores.scenes)):
        assert results.metrics[f"text_to_image/{key}"] == share.value
        assert results.metrics[f"text_to_image/{key}_se"] == share.standard_error


def test_a_scan_of_training_in_a_held_out_scene_is_a_fault(target: EvaluationTarget) -> None:
    scans = SCANS["train"].tolist()
    held_out = HeldOut([], [scene(0, int(SCANS["test"][0])), scene(1, scans[7])])
    with pytest.raises(AssertionError, match=rf"\[{scans[7]}\]"):
        measure_classifier(Results(), target, held_out, trained_on(scans), CONFIG)


@pytest.mark.parametrize("known", [(0, 3, 4), (), tuple(range(7))])
def test_prompts_that_training_has_word_for_word_are_reported_apart(known: tuple[int, ...]) -> None:
    prompts = seen_prompts(7, [], SEED)
    sizes = [len(prompt.objects) for prompt in prompts]
    # One object is missing in every third picture.
    read = [frozenset(list(prompt.objects)[index % 3 == 0 :]) for index, prompt in enumerate(prompts)]
    results = Results()
    measure_new_prompts(results, prompts, read, trained_on([], [prompts[index].text for index in known] + ["another"]))
    new = [index for index in range(7) if index not in known]
    assert results.metrics.pop("text_to_image/new_prompts") == len(new) / 7
    wanted = {}
    if new:
        share = share_of([sizes[index] - (index % 3 == 0) for index in new], [sizes[index] for index in new])
        key = "text_to_image/objects_right_new_prompts"
        wanted = {key: share.value, f"{key}_se": share.standard_error}
    assert results.metrics == wanted


@pytest.mark.parametrize("known", [(0, 1), (), tuple(range(5))])
def test_captions_that_training_has_word_for_word_are_reported_apart(known: tuple[int, ...]) -> None:
    prompts = seen_prompts(5, [], SEED)
    sizes = [len(prompt.objects) for prompt in prompts]
    stored = Stored(np.zeros(1, np.int64), np.zeros((1, 4, 4, 4), np.float32))
    scenes = [
        ImageDocument(f"c/{number}", stored, prompt.text, (), prompt.objects, ()) for number, prompt in enumerate(prompts)
    ]
    generated = [prompt.text if number in (0, 2) else "" for number, prompt in enumerate(prompts)]
    results = Results()
    measure_new_captions(results, scenes, generated, trained_on([], [prompts[index].text for index in known]))
    new = [index for index in range(5) if index not in known]
    assert results.metrics.pop("image_to_text/new_captions") == len(new) / 5
    wanted = {}
    if new:
        share = share_of([sizes[index] * (index in (0, 2)) for index in new], [sizes[index] for index in new])
        key = "image_to_text/objects_right_new_captions"
        wanted = {key: share.value, f"{key}_se": share.standard_error}
    assert results.metrics == wanted
