"""Whether generated pictures are copies: of each the nearest training picture, and how many have one that is too near.

Pictures are compared by their latents, position by position: a copy has the same things at the same places, which features
that are averaged over a picture do not tell from other pictures of the same things. Latents are also what the model was
trained to make, and the shards hold those of all training pictures.

How near is too near, held-out pictures say, which are no copies: a share of them, `held_out_share`, lies nearer to a training
picture than the threshold, and of a model that copies nothing about as many generated ones.

Legend: N pictures, E numbers of a latent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from components.evaluation.config import MemorisationConfig
from components.evaluation.generated import HeldOutPictures
from components.evaluation.held_out import TrainingFacts
from components.evaluation.images import decode, encode
from components.evaluation.intervals import items_of
from components.evaluation.results import NUM_SHOWN, EvaluationTarget, NearestPair, Results
from core.metric_keys import GENERATED_FOR

# Training pictures that are compared at once.
AT_ONCE = 2048


def measure_memorisation(
    results: Results,
    target: EvaluationTarget,
    pictures: HeldOutPictures,
    training: TrainingFacts,
    config: MemorisationConfig,
) -> None:
    """The share of generated pictures that are nearer to a training picture than all but a share of held-out ones."""
    generated = encode(target.autoencoder, pictures.generated)
    held_out = np.stack([document.stored.latents[0] for document in pictures.documents])
    stored = spread(training.latents, config.max_training_pictures)
    if not stored:
        results.notes.append("no training picture is there: copies are not looked for")
        return
    similarity, nearest = nearest_training(np.concatenate([generated, held_out]), held_out.mean(0), stored)
    num, threshold = len(generated), math.inf
    if num * config.held_out_share < 1:
        least = math.ceil(1 / config.held_out_share)
        results.notes.append(
            f"copies of training pictures need {least} held-out pictures, and there are {num}: none is flagged"
        )
    else:
        threshold = float(np.quantile(similarity[num:], 1 - config.held_out_share, method="higher"))
        names = [f"{GENERATED_FOR}{document.name}" for document in pictures.documents]
        results.add_items("memorisation/flagged_share", items_of(names, similarity[:num] > threshold, np.ones(num)))
        results.facts["memorisation"] = {
            "similarity": "cosine of latents, the mean of held-out ones taken off",
            "threshold": threshold,
            "num_training_pictures": sum(map(len, stored)),
            "num_held_out_pictures": num,
        }
    shown = np.argsort(-similarity[:num], kind="stable")[:NUM_SHOWN]
    found = decode(target.autoencoder, torch.from_numpy(np.stack([_at(stored, int(nearest[index])) for index in shown])))
    results.nearest_training = [
        NearestPair(pictures.generated[index], found[number], float(similarity[index]), bool(similarity[index] > threshold))
        for number, index in enumerate(shown)
    ]


def nearest_training(latents: np.ndarray, centre: np.ndarray, stored: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Of each of latents [N, C, Y, X] the greatest cosine to a stored one, centre [C, Y, X] taken off both, and which it is."""
    wanted = _directions(latents, centre)
    best, where = np.full(len(latents), -np.inf, np.float32), np.zeros(len(latents), np.int64)
    for first, part in _parts(stored):
        cosines = wanted @ _directions(part, centre).T
        index = cosines.argmax(1)
        value = cosines[np.arange(len(latents)), index]
        where = np.where(value > best, first + index, where)
        best = np.maximum(best, value)
    return best.astype(np.float64), where


def spread(stored: Sequence[np.ndarray], most: int) -> list[np.ndarray]:
    """At most so many of the stored latents, every so many-th of each array, without a copy."""
    step = max(1, math.ceil(sum(map(len, stored)) / most))
    return [part for part in (array[::step] for array in stored) if len(part)]


def _directions(latents: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """float32 [N, E] of length 1."""
    flat = (latents.astype(np.float32) - centre).reshape(len(latents), -1)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def _parts(stored: Sequence[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    """Pieces of at most AT_ONCE, each with the number of its first among all."""
    first = 0
    for array in stored:
        for start in range(0, len(array), AT_ONCE):
            yield first + start, array[start : start + AT_ONCE]
        first += len(array)


def _at(stored: Sequence[np.ndarray], index: int) -> np.ndarray:
    """The stored latent of this number among all, float32 [C, Y, X]."""
    for array in stored:
        if index < len(array):
            return array[index].astype(np.float32)
        index -= len(array)
    raise IndexError(index)
