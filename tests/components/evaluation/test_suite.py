"""The figures that the suite makes of its parts: the caption gap's sign and size, and whose scans the classifier has seen."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from components.data.config import SplitShares
from components.data.demonstration.scenes import SceneObject, compose, load_scans, split_scans
from components.evaluation import digit_classifier as classifier_module
from components.evaluation.config import DigitClassifierConfig, EvaluateConfig
from components.evaluation.digit_classifier import DigitClassifier, score_classifier, train_classifier
from components.evaluation.held_out import HeldOut, ImageDocument, Stored, TrainingFacts
from components.evaluation.suite import EvaluationTarget, Results, measure_classifier, measure_losses
from core.png import encode_png
from core.random import seed_of
from core.tokenizer import TextTokenizer
from model.config import ModelConfig
from model.latents.autoencoder import Autoencoder
from model.transfusion import Transfusion
from tests.components.evaluation.test_diffusion import document, one_image_error

SEED = 29
CONFIG = EvaluateConfig(
    seed=SEED,
    num_seen_scenes=3,
    num_kept_out_scenes=2,
    num_captions=5,
    num_loss_images=4,
    max_text_bytes=1000,
    guidance_scale=2.0,
    num_solver_steps=2,
    loss_times=(0.35, 0.8),
    batch_size=2,
    digit_classifier=DigitClassifierConfig(max_steps=6, batch_size=16),
)
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
    classifier = measure_classifier(results, target, held_out, TrainingFacts([], seen), CONFIG)
    assert all(bool(value.isfinite().all()) for value in classifier.state_dict().values())
    assert_same_weights(classifier, wanted)


def test_the_classifiers_own_accuracy_is_measured_on_the_held_out_scenes_that_are_captioned(target: EvaluationTarget) -> None:
    documents = [scene(number, int(scan)) for number, scan in enumerate(SCANS["test"][:200:20])]
    # A classifier that can read, so that a picture's truth matters.
    config = dataclasses.replace(CONFIG, digit_classifier=DigitClassifierConfig(max_steps=60, batch_size=64))
    results = Results()
    classifier = measure_classifier(results, target, HeldOut([], documents), TrainingFacts([], SCANS["train"].tolist()), config)
    chosen = documents[: config.num_captions]
    images = np.stack([picture(number, one.scans[0]) for number, one in enumerate(chosen)])
    scores = score_classifier(classifier, images, [one.objects or frozenset() for one in chosen])
    assert scores.objects_right >= 0.4
    assert results.metrics["text_to_image/judge_on_real"] == scores.objects_right
    assert results.metrics["text_to_image/judge_scenes_on_real"] == scores.scenes_right


def test_a_scan_of_training_in_a_held_out_scene_is_a_fault(target: EvaluationTarget) -> None:
    scans = SCANS["train"].tolist()
    held_out = HeldOut([], [scene(0, int(SCANS["test"][0])), scene(1, scans[7])])
    with pytest.raises(AssertionError, match=rf"\[{scans[7]}\]"):
        measure_classifier(Results(), target, held_out, TrainingFacts([], scans), CONFIG)
