"""What is evaluated, and what an evaluation finds: figures with their intervals, and what is to be shown beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from components.evaluation.diffusion import DiffusionLosses
from components.evaluation.images import Decoder
from components.evaluation.intervals import Interval, Items, interval_of, items_of
from components.evaluation.scenes.scores import Share
from core.metric_keys import standard_error_key
from core.tokenizer import TextTokenizer
from model.latents.autoencoder import Autoencoder
from model.step import Engine
from model.transfusion import Transfusion

# Shown in the report, the first ones as they come.
NUM_SHOWN = 12


class EvaluationTarget(NamedTuple):
    """What is evaluated."""

    model: Transfusion
    autoencoder: Autoencoder
    tokenizer: TextTokenizer
    origin: Mapping[str, str] = MappingProxyType({})
    """Of the autoencoder, whose features pictures are compared by: `autoencoder` (where it comes from) and
    `autoencoder_sha256` (of its weights' file)."""
    engine: Engine | None = None
    """What generates pictures and captions; the model in eager torch where it is None. Likelihoods are always the model's."""
    max_rows: int | None = None
    """Rows that a step of the engine takes at most; any number where it is None."""
    decoder: Decoder | None = None
    """Of the generated latents; the autoencoder's where it is None."""


class GeneratedImage(NamedTuple):
    """A picture generated from a prompt."""

    group: str
    """A heading."""
    image: np.ndarray
    prompt: str
    read: str
    """What the classifier saw, or ""."""
    right: bool | None
    """Whether the whole scene is; None where not scored."""


class Captioned(NamedTuple):
    """A held-out picture, its captions in the corpus, and the generated ones."""

    image: np.ndarray
    references: tuple[str, ...]
    """All of the corpus, one at least."""
    generated: str
    """Of the likeliest tokens."""
    sampled: str
    """Of tokens sampled at temperature 1."""
    right: bool | None
    """None where not scored."""


class NearestPair(NamedTuple):
    """A generated picture beside the training picture that is nearest to it, both as the autoencoder decodes them."""

    generated: np.ndarray
    training: np.ndarray
    similarity: float
    """At most 1, of a copy."""
    flagged: bool
    """Whether it is nearer than all but a few held-out pictures are to theirs."""


@dataclass
class Results:
    """The figures, and what is to be shown beside them."""

    metrics: dict[str, float] = field(default_factory=dict)
    """By the keys of METRICS."""
    items: dict[str, Items] = field(default_factory=dict)
    """Of each figure that is measured item by item."""
    intervals: dict[str, Interval] = field(default_factory=dict)
    """Of each figure that has one."""
    notes: list[str] = field(default_factory=list)
    """What was not measured, and why."""
    generated: list[GeneratedImage] = field(default_factory=list)
    captions: list[Captioned] = field(default_factory=list)
    nearest_training: list[NearestPair] = field(default_factory=list)
    """The generated pictures that are most like a training picture, the most alike first."""
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """How figures were measured, by the first part of their keys: sizes of samples, thresholds, the features' network."""
    diffusion: DiffusionLosses | None = None
    """Of the network's own target, at times of its own path."""
    x_0: DiffusionLosses | None = None
    """Of the implied clean latent, at times of the cosine schedule."""

    def add(self, key: str, share: Share, names: Sequence[str]) -> None:
        """Enter a share of scenes, and its standard error where there is one. names: of the scenes."""
        self.metrics[key] = share.value
        if share.standard_error is not None:
            self.metrics[standard_error_key(key)] = share.standard_error
        self.items[key] = items_of(names, share.right, share.counted)

    def add_items(self, key: str, items: Items, value: float | None = None) -> None:
        """Enter a figure that is a ratio of sums over items. value: the ratio, where it was summed in another order."""
        self.metrics[key], self.items[key] = items.value if value is None else value, items

    def find_intervals(self, seed: int) -> None:
        """Of every figure measured item by item that has none yet."""
        found = {key: interval_of(items, seed) for key, items in self.items.items() if key not in self.intervals}
        self.intervals |= {key: each for key, each in found.items() if each is not None}

    def leave_out_what_is_no_number(self) -> None:
        """Take out NaN and infinities, as of a model that diverged: JSON has no such numbers, and a sentence says more."""
        left_out = [key for key, value in self.metrics.items() if not math.isfinite(value)]
        for key in left_out:
            for entries in (self.metrics, self.items, self.intervals):
                entries.pop(key, None)
        if left_out:
            others = f" and {len(left_out) - 1} more" if left_out[1:] else ""
            self.notes.append(f"{left_out[0]}{others} came out infinite or as no number, as where a model diverged: left out")
        self.intervals = {key: each for key, each in self.intervals.items() if math.isfinite(each.low + each.high)}
        self.diffusion, self.x_0 = (
            losses if losses and math.isfinite(sum(losses.all)) else None for losses in (self.diffusion, self.x_0)
        )
