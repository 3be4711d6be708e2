"""The distances between generated and held-out pictures, with those between training and held-out pictures as the floor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from components.evaluation.distribution.distances import NUM_RESAMPLES, Distance, frechet, kid
from components.evaluation.distribution.features import FeatureSpace
from components.evaluation.distribution.neighbours import NEAREST_OF_DENSITY, neighbourhood
from components.evaluation.generated import HeldOutPictures
from components.evaluation.held_out import TrainingFacts
from components.evaluation.intervals import items_of
from components.evaluation.results import EvaluationTarget, Results
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
    if not training.pictures:
        results.notes.append("no training document holds one picture alone: distances between pictures are not measured")
        return None
    trained = np.stack([decode_png(png) for png in training.pictures])
    space = FeatureSpace(target.autoencoder, trained)
    num_pictures, needed = len(pictures.documents), fewest_pictures(space)
    if min(num_pictures, len(trained)) < needed:
        results.notes.append(
            f"distances between pictures need {needed} held-out and as many training pictures, and there are {num_pictures} and"
            f" {len(trained)}: they are not measured"
        )
        return None
    reference = Reference(space, space.of(pictures.real), [document.name for document in pictures.documents])
    enter(results, "distribution/{}", space.of(pictures.generated), reference, seed)
    floor = space.of(trained[:num_pictures])
    _enter_distance(results, "distribution/frechet_floor", frechet(floor, reference.held_out, seed))
    _enter_distance(results, "distribution/kid_floor", kid(floor, reference.held_out, seed))
    results.facts["distribution"] = {
        "features": FEATURES,
        "num_features": space.num_features,
        "num_generated_and_held_out_pictures": num_pictures,
        "num_training_pictures_of_the_floor": len(floor),
        "num_training_pictures_of_the_whitening": len(trained),
        "num_resamples_of_distances": NUM_RESAMPLES,
    }
    return reference


def fewest_pictures(space: FeatureSpace) -> int:
    """Of each set: with fewer a covariance has directions of no variance, and a picture too few neighbours."""
    return max(space.num_features, NEAREST_OF_DENSITY) + 1


def enter(results: Results, key: str, generated: np.ndarray, reference: Reference, seed: int) -> None:
    """Everything between features of generated pictures and those of the first as many held-out ones. key: has a {}."""
    real, names = reference.held_out[: len(generated)], reference.names[: len(generated)]
    _enter_distance(results, key.format("frechet"), frechet(generated, real, seed))
    _enter_distance(results, key.format("kid"), kid(generated, real, seed))
    for name, values in neighbourhood(generated, real)._asdict().items():
        results.add_items(key.format(name), items_of(_named(names, name), values, np.ones(len(values))))


def _enter_distance(results: Results, key: str, distance: Distance) -> None:
    results.metrics[key], results.intervals[key] = distance


def _named(documents: Sequence[str], figure: str) -> list[str]:
    """What an item is: the picture generated for a document, or the document's own."""
    return [f"{GENERATED_FOR}{name}" for name in documents] if figure in ("precision", "density") else list(documents)
