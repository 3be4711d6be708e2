"""Captions of any corpus' held-out pictures: CIDEr-D, BLEU-4, ROUGE-L and exact match, of the likeliest and of sampled tokens.

A picture that stands in several documents, each with a caption of its own, is captioned once and compared with all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from components.evaluation.captions import overlap
from components.evaluation.captions.cider import cider
from components.evaluation.captions.generation import caption_images
from components.evaluation.captions.words import words_of_caption
from components.evaluation.config import EvaluateConfig
from components.evaluation.held_out import HeldOut, ImageDocument
from components.evaluation.intervals import interval, items_of
from components.evaluation.layout import image_grid
from components.evaluation.results import NUM_SHOWN, Captioned, EvaluationTarget, Results
from components.evaluation.sampling import num_at_once
from components.evaluation.scenes.measure import measure_scene_captions
from components.evaluation.training_facts import TrainingFacts
from core.png import decode_png
from core.text import counted
from model.generation.eager import TorchEngine

# Captions may be this many tokens longer than the longest true one.
MARGIN_TOKENS = 8
# Before a caption stand the token of the beginning and the two around the image.
NUM_MARKERS = 3
SAMPLED_TEMPERATURE = 1.0
# Fewer pictures' references do not say which words are rare, which CIDEr weighs by.
LEAST_FOR_CIDER = 10


class CaptionedPicture(NamedTuple):
    """A held-out picture with what the corpus says of it."""

    document: ImageDocument
    """The first that has it."""
    references: tuple[str, ...]
    """Its captions, each once."""


def measure_captions(
    results: Results, target: EvaluationTarget, held_out: HeldOut, training: TrainingFacts, config: EvaluateConfig
) -> None:
    """Caption the first num_captions pictures that have captions, and score them; scenes by their objects too."""
    pictures = captioned_pictures(held_out.images)[: config.num_captions]
    if not pictures:
        results.notes.append("no held-out picture has a caption of its own: captions are not measured")
        return
    greedy, sampled = (captions_of(pictures, target, config, temperature) for temperature in (0.0, SAMPLED_TEMPERATURE))
    score(results, "captions", pictures, greedy, config.seed)
    score(results, "captions/sampled", pictures, sampled, config.seed)
    note_unmeasured(results, pictures)
    right = _scenes_right(results, pictures, greedy, training)
    for picture, likeliest, other, outcome in list(zip(pictures, greedy, sampled, right, strict=True))[:NUM_SHOWN]:
        image = decode_png(picture.document.pictures[0])
        results.captions.append(Captioned(image, picture.references, likeliest, other, outcome))


def captioned_pictures(documents: Sequence[ImageDocument]) -> list[CaptionedPicture]:
    """The pictures of the documents that hold one and a caption, in order; equal files are one picture."""
    found: dict[bytes, tuple[ImageDocument, dict[str, None]]] = {}
    for document in documents:
        if document.caption is not None:
            found.setdefault(document.pictures[0], (document, {}))[1][document.caption] = None
    return [CaptionedPicture(document, tuple(captions)) for document, captions in found.values()]


def captions_of(
    pictures: Sequence[CaptionedPicture], target: EvaluationTarget, config: EvaluateConfig, temperature: float
) -> list[str]:
    """One generated caption a picture."""
    longest = max(len(target.tokenizer.encode(reference)) for picture in pictures for reference in picture.references)
    # Of a row that the model knows, what the image with its markers leaves.
    config_of_model, stored = target.model.config, [picture.document.stored for picture in pictures]
    room = config_of_model.max_position_embeddings - math.prod(image_grid(stored, config_of_model)) - NUM_MARKERS
    return caption_images(
        target.engine or TorchEngine(target.model),
        target.tokenizer,
        [picture.document.stored.latents[0] for picture in pictures],
        max_new_tokens=min(longest + MARGIN_TOKENS, room),
        seed=config.seed,
        num_slots=num_at_once(target, config, guided=False),
        temperature=temperature,
    )


def score(results: Results, prefix: str, pictures: Sequence[CaptionedPicture], generated: Sequence[str], seed: int) -> None:
    """Enter the four figures of captions, one a picture. prefix: of their keys. seed: of BLEU's interval."""
    names, ones = [picture.document.name for picture in pictures], np.ones(len(pictures))
    candidates, references = [words_of_caption(text) for text in generated], _references(pictures)
    pairs = list(zip(candidates, references, strict=True))
    results.add_items(f"{prefix}/exact", items_of(names, [overlap.exact_match(*pair) for pair in pairs], ones))
    results.add_items(f"{prefix}/rouge_l", items_of(names, [overlap.rouge_l(*pair) for pair in pairs], ones))
    if len(pictures) >= LEAST_FOR_CIDER:
        results.add_items(f"{prefix}/cider", items_of(names, cider(candidates, references), ones))
    if _has_four_words(references):
        # A figure of all pictures' sums together, which has no items of its own.
        counts = np.array([overlap.bleu_counts(*pair) for pair in pairs])
        results.metrics[f"{prefix}/bleu4"] = float(overlap.bleu(counts.sum(0, keepdims=True))[0])
        found = interval(lambda indices: overlap.bleu(counts[indices].sum(1)), len(pictures), seed)
        results.intervals |= {f"{prefix}/bleu4": found} if found else {}


def note_unmeasured(results: Results, pictures: Sequence[CaptionedPicture]) -> None:
    """Say which of the figures these pictures are too few, or their captions too short, for."""
    if len(pictures) < LEAST_FOR_CIDER:
        results.notes.append(
            "CIDEr of captions weighs words by how few of the held-out pictures' captions have them, and "
            f"{counted(len(pictures), 'picture with captions is', 'pictures with captions are')} fewer than {LEAST_FOR_CIDER}: "
            "it is not measured"
        )
    if not _has_four_words(_references(pictures)):
        results.notes.append("no held-out caption has four words: BLEU-4 of captions is not measured")


def _references(pictures: Sequence[CaptionedPicture]) -> list[list[tuple[str, ...]]]:
    return [[words_of_caption(text) for text in picture.references] for picture in pictures]


def _has_four_words(references: Sequence[Sequence[tuple[str, ...]]]) -> bool:
    return any(len(words) >= overlap.ORDER for every in references for words in every)


def _scenes_right(
    results: Results, pictures: Sequence[CaptionedPicture], generated: Sequence[str], training: TrainingFacts
) -> list[bool | None]:
    """Whether each caption names exactly the objects of its picture; None where that is no scene."""
    scenes = [(picture.document, text) for picture, text in zip(pictures, generated, strict=True) if picture.document.objects]
    if not scenes:
        return [None] * len(pictures)
    right = iter(measure_scene_captions(results, [scene for scene, _ in scenes], [text for _, text in scenes], training))
    return [next(right) if picture.document.objects else None for picture in pictures]
