"""The distances between generated and held-out pictures, with those between training and held-out pictures as the floor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from components.evaluation.distribution.distances import NUM_RESAMPLES, frechet, kid
from components.evaluation.distribution.features import FeatureSpace, num_features
from components.evaluation.distribution.neighbours import NEAREST_OF_DENSITY, neighbourhood
from components.evaluation.generated import HeldOutPictures
from components.evaluation.intervals import items_of
from components.evaluation.results import EvaluationTarget, Results
from components.evaluation.training_facts import TrainingFacts
from core.metric_keys import GENERATED_FOR
from core.png import decode_png

FEATURES = "the autoencoder's encoder before its last convolution, averaged over places, whitened by training pictures"


class Reference(NamedTuple):
    """What generated pictures are held against."""

    space: FeatureSpace
    held_out: np.ndarray
    """Features of the held-out pictures, float64 [N, D]."""
    names: list[str]
    """Of their documents."""


def measure_distribution(
    results: Results, target: EvaluationTarget, pictures: HeldOutPictures, training: TrainingFacts, seed: int
) -> Reference | None:
    """Frechet distance, KID and their floors, precision, recall, density and coverage. None where nothing could be measured."""
    num_pictures, num_trained = len(pictures.documents), len(training.pictures)
    needed = fewest_pictures(num_features(target.autoencoder))
    if min(num_pictures, num_trained) < needed:
        results.notes.append(
            f"distances between pictures need {needed} held-out and as many training pictures, and {num_pictures} and "
            f"{num_trained} were read: they are not measured"
        )
        return None
    space = FeatureSpace(target.autoencoder, map(decode_png, training.pictures))
    reference = Reference(space, space.of(pictures.real()), [document.name for document in pictures.documents])
    enter(results, "distribution/{}", space.of(pictures.generated), reference, seed)
    if num_trained >= num_pictures:
        floor = space.of(map(decode_png, training.pictures[:num_pictures]))
        enter_distances(results, "distribution/{}_floor", floor, reference.held_out, seed)
    else:
        results.notes.append(
            f"the floor of distances needs as many training pictures as held-out ones, {num_pictures}, and "
            f"{num_trained} were read: it is not measured"
        )
    results.facts["distribution"] = {
        "features": FEATURES,
        **target.origin,
        "num_features": num_features(target.autoencoder),
        "num_generated_and_held_out_pictures": num_pictures,
        "num_training_pictures_of_the_floor": num_pictures if num_trained >= num_pictures else 0,
        "num_training_pictures_of_the_whitening": num_trained,
        "num_resamples_of_distances": NUM_RESAMPLES,
    }
    return reference


def fewest_pictures(num_features: int) -> int:
    """Of each set: with fewer a covariance has directions of no variance, and a picture too few neighbours."""
    return max(num_features, NEAREST_OF_DENSITY) + 1


def enter(results: Results, key: str, generated: np.ndarray, reference: Reference, seed: int) -> None:
    """Everything between features of generated pictures and those of the first as many held-out ones. key: has a {}."""
    real, names = reference.held_out[: len(generated)], reference.names[: len(generated)]
    enter_distances(results, key, generated, real, seed)
    for name, values in neighbourhood(generated, real)._asdict().items():
        results.add_items(key.format(name), items_of(_named(names, name), values, np.ones(len(values))))


def enter_distances(results: Results, key: str, features: np.ndarray, real: np.ndarray, seed: int) -> None:
    """Frechet distance and KID, and their intervals where they have one. key: has a {}."""
    for name, distance in (("frechet", frechet(features, real, seed)), ("kid", kid(features, real, seed))):
        results.metrics[key.format(name)] = distance.value
        if distance.interval is not None:
            results.intervals[key.format(name)] = distance.interval


def _named(documents: Sequence[str], figure: str) -> list[str]:
    """What an item is: the picture generated for a document, or the document's own."""
    return [f"{GENERATED_FOR}{name}" for name in documents] if figure in ("precision", "density") else list(documents)
