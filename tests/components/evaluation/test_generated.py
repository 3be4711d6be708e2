"""A picture for each held-out caption: which documents are asked for, and what stands beside them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from components.evaluation.distribution.measure import Reference, enter, measure_distribution
from components.evaluation.generated import HeldOutPictures, held_out_pictures, prompted_documents, prompts_of, show_generated
from components.evaluation.guidance import measure_guidance
from components.evaluation.held_out import HeldOut, ImageDocument, Stored
from components.evaluation.results import EvaluationTarget, Results
from components.evaluation.sampling import images_of
from components.evaluation.training_facts import TrainingFacts
from core.png import encode_png
from core.tokenizer import TextTokenizer
from model.latents.autoencoder import Autoencoder
from model.transfusion import Transfusion
from tests.components.evaluation.test_suite import CONFIG

SEED = CONFIG.seed


def pictures_of(number: int, num: int = 1) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (num, 8, 8, 3), np.uint8)


def document(number: int, caption: str | None, num_pictures: int = 1) -> ImageDocument:
    stored = Stored(np.zeros(1, np.int64), np.zeros((num_pictures, 4, 4, 4), np.float32))
    files = tuple(encode_png(picture) for picture in pictures_of(number, num_pictures))
    return ImageDocument(f"c/{number}", stored, caption, files, None, ())


CAPTIONED = [document(number, f"a red {name} top left") for number, name in enumerate(("one", "two", "three", "four", "five"))]
ALONE = [document(10 + number, None) for number in range(3)]
SEVERAL = document(20, None, 2)


@pytest.fixture
def target(model: Transfusion, tokenizer: TextTokenizer) -> EvaluationTarget:
    torch.manual_seed(2)
    shape = {"layers_per_block": 1, "latent_channels": 4, "norm_groups": 2, "sample_side_px": 8}
    return EvaluationTarget(model, Autoencoder.create(block_channels=(2, 2), **shape).eval(), tokenizer)


def test_captions_are_asked_for_and_without_any_pictures_alone_are() -> None:
    def asked(*documents: ImageDocument) -> list[ImageDocument]:
        return prompted_documents(HeldOut([], list(documents)))

    assert asked(ALONE[0], *CAPTIONED, SEVERAL) == CAPTIONED
    assert asked(*ALONE) == ALONE
    # Another caption of the same picture.
    twin = CAPTIONED[0]._replace(name="c/0#1", caption="one red thing")
    assert asked(CAPTIONED[0], twin, *CAPTIONED[1:], twin) == CAPTIONED
    assert prompts_of(ALONE) == ["", "", ""]
    # The empty prompt asks for pictures of either kind of document.
    assert asked(*ALONE, SEVERAL) == asked(SEVERAL) == []


def test_every_document_has_its_own_picture_and_one_of_its_caption(target: EvaluationTarget) -> None:
    results, held_out = Results(), HeldOut([], CAPTIONED)
    pictures = held_out_pictures(results, target, held_out, CONFIG)
    assert pictures is not None and pictures.documents == CAPTIONED[: CONFIG.num_pictures]
    assert np.stack([*pictures.real()]).tobytes() == np.concatenate([pictures_of(number) for number in range(4)]).tobytes()
    np.testing.assert_array_equal(pictures.generated, images_of(target, held_out, prompts_of(CAPTIONED[:4]), CONFIG))
    show_generated(results, pictures)
    assert [(each.prompt, each.right) for each in results.generated] == [(each.caption, None) for each in CAPTIONED[:4]]
    assert results.generated[3].image.tobytes() == pictures.generated[3].tobytes()


def test_pictures_alone_are_asked_for_without_a_prompt_and_others_are_a_note(target: EvaluationTarget) -> None:
    results = Results()
    pictures = held_out_pictures(results, target, HeldOut([], ALONE), CONFIG)
    assert pictures is not None and len(pictures.generated) == 3
    assert held_out_pictures(results, target, HeldOut([], [SEVERAL]), CONFIG) is None
    assert results.notes == ["held-out documents hold several pictures each: what is generated is not compared with them"]
    measure_guidance(results, target, HeldOut([], ALONE), pictures, None, None, CONFIG)
    assert "no captions" in results.notes[1] and not results.metrics


def trained_on(num: int) -> TrainingFacts:
    return TrainingFacts([], [], frozenset(), tuple(encode_png(each) for each in pictures_of(30, num)))


def many(num: int) -> HeldOutPictures:
    # The documents' own are those of 40 and on.
    documents = [document(40 + number, f"a red one, number {number}") for number in range(num)]
    return HeldOutPictures(documents, pictures_of(51, num))


FIGURES = {"frechet", "kid", "precision", "recall", "density", "coverage"}


def test_the_floor_is_the_distance_of_as_many_training_pictures(target: EvaluationTarget) -> None:
    pictures, training = many(12), trained_on(20)
    results, swapped = Results(), Results()
    reference = measure_distribution(results, target, pictures, training, SEED)
    assert set(results.metrics) == {f"distribution/{name}" for name in (*FIGURES, "frechet_floor", "kid_floor")}
    results.find_intervals(SEED)
    assert set(results.intervals) == set(results.metrics)
    # What was the floor is the figure where training pictures stand for generated ones.
    known = pictures._replace(generated=np.concatenate([pictures_of(30, 20)[:12]]))
    measure_distribution(swapped, target, known, training, SEED)
    for name in ("frechet", "kid"):
        assert swapped.metrics[f"distribution/{name}"] == results.metrics[f"distribution/{name}_floor"]
    assert reference is not None and reference.names == [each.name for each in pictures.documents]
    assert results.items["distribution/recall"].names == tuple(reference.names)


@pytest.mark.parametrize(("num", "num_training"), [(2, 20), (12, 5), (12, 1), (12, 0)])
def test_too_few_pictures_are_a_note_and_no_figure(num: int, num_training: int, target: EvaluationTarget) -> None:
    results = Results()
    measure_distribution(results, target, many(num), trained_on(num_training), SEED)
    assert not results.metrics and not results.items and not results.intervals
    assert len(results.notes) == 1
    assert f"need 6 held-out and as many training pictures, and {num} and {num_training} were read" in results.notes[0]
    # Nor at any scale, where the features of too few training pictures would mean nothing.
    assert measure_distribution(Results(), target, many(num), trained_on(num_training), SEED) is None


def test_a_floor_of_fewer_training_pictures_is_a_note(target: EvaluationTarget) -> None:
    results = Results()
    assert measure_distribution(results, target, many(12), trained_on(9), SEED) is not None
    assert set(results.metrics) == {f"distribution/{name}" for name in FIGURES}
    assert results.notes == [
        "the floor of distances needs as many training pictures as held-out ones, 12, and 9 were read: it is not measured"
    ]


def test_the_facts_say_whose_features_they_are(target: EvaluationTarget) -> None:
    results, origin = Results(), {"autoencoder": "trained on this corpus", "autoencoder_sha256": "ab" * 32}
    measure_distribution(results, target._replace(origin=origin), many(12), trained_on(20), SEED)
    assert origin.items() <= results.facts["distribution"].items()


def test_every_scale_has_its_scores_and_the_used_one_those_of_the_pictures_at_hand(target: EvaluationTarget) -> None:
    pictures, held_out = many(9), HeldOut([], many(9).documents)
    sweep = dataclasses.replace(CONFIG.guidance_sweep, scales=(1.5, CONFIG.guidance_scale), num_prompts=7)
    config = dataclasses.replace(CONFIG, guidance_sweep=sweep)
    results = Results()
    reference = measure_distribution(Results(), target, pictures, trained_on(20), SEED)
    measure_guidance(results, target, held_out, pictures, reference, None, config)
    assert set(results.metrics) == {f"guidance/{name}/{scale}" for name in FIGURES for scale in ("1.5", "2")}
    assert results.facts["guidance"] == {"scale_used": 2.0, "num_prompts_of_a_scale": 7}
    assert isinstance(reference, Reference)
    other = images_of(target, held_out, prompts_of(pictures.documents[:7]), dataclasses.replace(config, guidance_scale=1.5))
    for scale, images in (("1.5", other), ("2", pictures.generated[:7])):
        wanted = Results()
        enter(wanted, "guidance/{}/" + scale, reference.space.of(images), reference, SEED)
        assert wanted.metrics.items() <= results.metrics.items()


def test_without_enough_prompts_a_scale_has_no_distances(target: EvaluationTarget) -> None:
    pictures = many(9)
    results = Results()
    reference = measure_distribution(Results(), target, pictures, trained_on(20), SEED)
    measure_guidance(results, target, HeldOut([], pictures.documents), pictures, reference, None, CONFIG)
    assert not results.metrics
    assert results.notes == ["3 pictures a scale are too few for distances: guidance is measured without them"]
