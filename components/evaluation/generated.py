"""Pictures generated for held-out documents, one for each caption, beside the documents' own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from components.evaluation.config import EvaluateConfig
from components.evaluation.held_out import HeldOut, ImageDocument
from components.evaluation.results import NUM_SHOWN, EvaluationTarget, GeneratedImage, Results
from components.evaluation.sampling import images_of
from core.png import decode_png


class HeldOutPictures(NamedTuple):
    """Held-out documents of one picture each, and a generated picture for each."""

    documents: list[ImageDocument]
    generated: np.ndarray
    """uint8 [N, side, side, 3]."""

    def real(self) -> Iterator[np.ndarray]:
        """The documents' own, decoded one by one: uint8 [side, side, 3] each."""
        return (decode_png(document.pictures[0]) for document in self.documents)


def held_out_pictures(
    results: Results, target: EvaluationTarget, held_out: HeldOut, config: EvaluateConfig
) -> HeldOutPictures | None:
    """Of the first config.num_pictures documents; None, and a note, where no prompt asks for such pictures."""
    documents = prompted_documents(held_out)[: config.num_pictures]
    if not documents:
        results.notes.append("held-out documents hold several pictures each: what is generated is not compared with them")
        return None
    return HeldOutPictures(documents, images_of(target, held_out, prompts_of(documents), config))


def prompted_documents(held_out: HeldOut) -> list[ImageDocument]:
    """The captioned ones, or without any those of a picture alone, for which the empty prompt asks as training did.

    Where both are there the empty prompt asks for either, so that its pictures compare with neither. A picture that several
    documents show, each with a caption of its own, counts once: of a set that holds it several times no distance is right.
    """
    captioned = [document for document in held_out.images if document.caption is not None]
    alone = [document for document in held_out.images if len(document.pictures) == 1]
    first: dict[bytes, ImageDocument] = {}
    for document in captioned or (alone if len(alone) == len(held_out.images) else []):
        first.setdefault(document.pictures[0], document)
    return list(first.values())


def prompts_of(documents: list[ImageDocument]) -> list[str]:
    """Their captions; "" of a picture alone."""
    return [document.caption or "" for document in documents]


def show_generated(results: Results, pictures: HeldOutPictures) -> None:
    """The first ones, where nothing reads them."""
    entries = zip(pictures.generated, prompts_of(pictures.documents), strict=True)
    group = "held-out captions" if pictures.documents[0].caption is not None else "pictures without a prompt"
    results.generated = [GeneratedImage(group, image, prompt, "", None) for image, prompt in list(entries)[:NUM_SHOWN]]
