"""The classifier, trained on some scans, reads others, and what it gets wrong is counted."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from components.data.config import SplitShares
from components.data.demonstration.scenes import ALL_PAIRS, SceneObject, compose, load_scans, random_objects, split_scans
from components.evaluation.config import DigitClassifierConfig
from components.evaluation.scenes.digit_classifier import (
    EMPTY,
    DigitClassifier,
    colour_of,
    sample_cells,
    train_classifier,
)
from components.evaluation.scenes.scores import score_scenes

SHARES = SplitShares(validation=0.08, test=0.12)

Scenes = tuple[np.ndarray, list[frozenset[SceneObject]]]


@pytest.fixture(scope="module")
def classifier() -> DigitClassifier:
    scans = split_scans(SHARES, 17)
    started_s = time.monotonic()
    classifier = train_classifier(
        np.concatenate([scans["train"], scans["validation"]]).tolist(), DigitClassifierConfig(max_steps=300, batch_size=64), 17
    )
    print(f"trained in {time.monotonic() - started_s:.1f} s")
    return classifier


@pytest.fixture(scope="module")
def scenes() -> tuple[np.ndarray, list[frozenset[SceneObject]]]:
    """300 scenes of test scans, which the classifier has never seen."""
    rng = np.random.default_rng(23)
    test = split_scans(SHARES, 17)["test"]
    labels = load_scans().digit[test]
    images, truth = [], []
    for _ in range(300):
        objects = random_objects(rng, ALL_PAIRS)
        images.append(compose(objects, [int(rng.choice(test[labels == thing.digit])) for thing in objects], rng))
        truth.append(frozenset(objects))
    return np.stack(images), truth


def test_it_is_the_same_whatever_number_of_threads_the_machine_has() -> None:
    config, found = DigitClassifierConfig(max_steps=12, batch_size=64), []
    before = torch.get_num_threads()
    for num_threads in (1, 2, 3):
        torch.set_num_threads(num_threads)
        try:
            trained = train_classifier(range(40), config, 17)
            assert torch.get_num_threads() == num_threads
        finally:
            torch.set_num_threads(before)
        found.append([value.numpy().tobytes() for value in trained.state_dict().values()])
    assert found[0] == found[1] == found[2]


def test_reads_real_scenes_of_unseen_scans(classifier: DigitClassifier, scenes: Scenes) -> None:
    images, truth = scenes
    scores = score_scenes(truth, classifier.read(images))
    print(scores)
    assert scores.objects.value >= 0.97
    assert scores.scenes.value >= 0.94


def test_reads_larger_pictures_and_empty_ones(classifier: DigitClassifier, scenes: Scenes) -> None:
    images, truth = scenes
    doubled = images[:100].repeat(2, axis=1).repeat(2, axis=2)
    assert score_scenes(truth[:100], classifier.read(doubled)).objects.value >= 0.9
    assert classifier.read(np.zeros((2, 32, 32, 3), np.uint8)) == [frozenset(), frozenset()]
    assert classifier.read(np.zeros((0, 32, 32, 3), np.uint8)) == []


def test_a_wrong_claim_is_counted_as_one(classifier: DigitClassifier, scenes: Scenes) -> None:
    images, truth = scenes
    right = [index for index, found in enumerate(classifier.read(images)) if found == truth[index]][:4]
    claims = [truth[index] for index in right]
    thing = next(iter(claims[0]))
    other = SceneObject((thing.digit + 1) % 10, thing.colour, thing.place)
    claims[0] = claims[0] - {thing} | {other}
    num_objects = sum(map(len, claims))
    scores = score_scenes(claims, classifier.read(images[right]))
    assert (scores.objects.value, scores.scenes.value) == ((num_objects - 1) / num_objects, 3 / 4)


def test_training_cells_show_what_they_say() -> None:
    scans = load_scans()
    generator = torch.Generator().manual_seed(1)
    cells = sample_cells(torch.from_numpy(scans.intensity), torch.from_numpy(scans.digit), 400, generator)
    empty = cells.digit == EMPTY
    assert 10 < int(empty.sum()) < 90
    assert float(cells.pixels[empty].abs().max()) < 0.6  # noise alone
    assert torch.equal(colour_of(cells.pixels[~empty]), cells.colour[~empty])
    assert float(cells.pixels[~empty].amax((1, 2, 3)).min()) > 0.25
