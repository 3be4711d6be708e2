"""Whether generated pictures are copies: of each the nearest training picture, and how many have one that is too near.

Pictures are compared by their latents, position by position: a copy has the same things at the same places, which features
that are averaged over a picture do not tell from other pictures of the same things. Latents are also what the model was
trained to make, and the shards hold those of all training pictures.

How near is too near, held-out pictures say, which are no copies: a share of them, `held_out_share`, lies nearer to a training
picture than the threshold, and of a model that copies nothing about as many generated ones.

Legend: N pictures, E numbers of a latent, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from components.evaluation.config import MemorisationConfig
from components.evaluation.generated import HeldOutPictures
from components.evaluation.images import decode, encode
from components.evaluation.intervals import interval, items_of
from components.evaluation.results import NUM_SHOWN, EvaluationTarget, NearestPair, Results
from components.evaluation.training_facts import TrainingFacts
from core.metric_keys import GENERATED_FOR

FLAGGED = "memorisation/flagged_share"
# Training pictures that are compared at once, and the most numbers that they may have together: 64 MB.
AT_ONCE, MOST_NUMBERS = 2048, 2**24


def measure_memorisation(
    results: Results,
    target: EvaluationTarget,
    pictures: HeldOutPictures,
    training: TrainingFacts,
    config: MemorisationConfig,
    seed: int,
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
            f"copies of training pictures need {least} held-out pictures, and the evaluation takes {num}: none is flagged"
        )
    else:
        threshold = float(threshold_of(similarity[num:], config.held_out_share))
        names = [f"{GENERATED_FOR}{document.name}" for document in pictures.documents]
        results.add_items(FLAGGED, items_of(names, similarity[:num] > threshold, np.ones(num)))
        if found := interval(lambda indices: flagged_shares(similarity, indices, config.held_out_share), num, seed):
            results.intervals[FLAGGED] = found
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


def threshold_of(similarity: np.ndarray, held_out_share: float) -> np.ndarray:
    """What all but a share of the held-out pictures keep to: [..., N] -> [...]."""
    return np.quantile(similarity, 1 - held_out_share, axis=-1, method="higher")


def flagged_shares(similarity: np.ndarray, indices: np.ndarray, held_out_share: float) -> np.ndarray:
    """The figure of each resample of documents: the pictures generated for them, and those that the threshold comes from.

    similarity: of the generated pictures, then of the held-out ones, [2 N]. indices: [R, N] -> [R].
    """
    generated, held_out = similarity.reshape(2, -1)
    return (generated[indices] > threshold_of(held_out[indices], held_out_share)[:, None]).mean(-1)


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
    """At most so many of the stored latents, every so many-th of all, without a copy."""
    step = max(1, math.ceil(sum(map(len, stored)) / most))
    found, first = [], 0
    for array in stored:
        # On from the array before: each by itself would give one at least, and together too many.
        found.append(array[-first % step :: step])
        first += len(array)
    return [part for part in found if len(part)]


def _directions(latents: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """float32 [N, E] of length 1."""
    flat = (latents.astype(np.float32) - centre).reshape(len(latents), -1)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def _parts(stored: Sequence[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    """Pieces of what is compared at once, each with the number of its first among all."""
    first = 0
    for array in stored:
        at_once = max(1, min(AT_ONCE, MOST_NUMBERS // math.prod(array.shape[1:])))
        for start in range(0, len(array), at_once):
            yield first + start, array[start : start + at_once]
        first += len(array)


def _at(stored: Sequence[np.ndarray], index: int) -> np.ndarray:
    """The stored latent of this number among all, float32 [C, Y, X]."""
    for array in stored:
        if index < len(array):
            return array[index].astype(np.float32)
        index -= len(array)
    raise IndexError(index)
