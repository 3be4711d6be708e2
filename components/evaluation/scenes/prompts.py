"""The scenes that are asked for: seeded prompts of pairs that training showed, and of pairs it never did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from components.data.demonstration.scenes import PHRASINGS, Pair, SceneObject, describe, random_objects, seen_pairs
from core.random import generator


class Prompt(NamedTuple):
    """What is asked of the model."""

    text: str
    """The caption."""
    objects: frozenset[SceneObject]
    """What it asks for."""


def seen_prompts(num: int, kept_out: Sequence[Pair], seed: int) -> list[Prompt]:
    """Scenes of 1 to 4 objects, every digit-colour pair of which was trained on, in every phrasing alike."""
    pairs = seen_pairs(kept_out)
    return [_prompt(random_objects(generator(seed, 1, index), pairs), index) for index in range(num)]


def kept_out_prompts(num: int, kept_out: Sequence[Pair], seed: int) -> list[Prompt]:
    """Scenes of 1 to 4 objects, one of which is a kept-out pair (each pair equally often) and the others seen ones."""
    pairs = seen_pairs(kept_out)
    prompts = []
    for index in range(num if kept_out else 0):
        rng = generator(seed, 2, index)
        objects = list(random_objects(rng, pairs))
        changed = int(rng.integers(len(objects)))
        objects[changed] = SceneObject(*kept_out[index % len(kept_out)], objects[changed].place)
        # Pairs and phrasings must not go round together.
        prompts.append(_prompt(objects, index // len(kept_out) + index))
    return prompts


def only_pairs(objects: frozenset[SceneObject], pairs: Sequence[Pair]) -> frozenset[SceneObject]:
    """The objects that show one of `pairs`."""
    return frozenset(thing for thing in objects if (thing.digit, thing.colour) in set(pairs))


def _prompt(objects: Sequence[SceneObject], phrasing: int) -> Prompt:
    return Prompt(describe(objects, phrasing % len(PHRASINGS)), frozenset(objects))
