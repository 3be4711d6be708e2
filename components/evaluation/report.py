"""What an evaluation leaves for the report of the whole run, and says on the console."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from components.evaluation.diffusion import DiffusionLosses
from components.evaluation.metrics import table
from components.evaluation.results import Results
from core.data_uri import picture_uri


def lines(results: Results) -> list[str]:
    """For a console: every figure, and what was not measured."""
    figures = [f"{figure.key:40}  {figure.text(4)}" for figure in table(results.metrics)]
    return figures + [f"not measured: {note}" for note in results.notes]


def shown(results: Results) -> dict[str, Any]:
    """For reports/evaluate/shown.json: notes, and pictures and captions to look at, each picture as a data URI."""
    return {
        "notes": results.notes,
        "generated": [each._asdict() | {"image": picture_uri(each.image)} for each in results.generated],
        "captions": [each._asdict() | {"image": picture_uri(each.image)} for each in results.captions],
        "nearest_training": [
            each._asdict() | {"generated": picture_uri(each.generated), "training": picture_uri(each.training)}
            for each in results.nearest_training
        ],
    }


def caption_rows(results: Results) -> Iterator[tuple[str, str, str, str]]:
    """Of each captioned picture: the corpus' captions, the likeliest one, a sampled one, and how it was judged."""
    outcomes = {True: "right", False: "wrong", None: "not judged"}
    for each in results.captions:
        yield " / ".join(each.references), each.generated, each.sampled, outcomes[each.right]


def diffusion_rows(losses: DiffusionLosses | None) -> list[dict[str, float]]:
    """One row a noise level, for a DVC plot: time, loss and, where measured, right_caption and wrong_caption."""
    if losses is None:
        return []
    rows: list[dict[str, float]] = [{"time": time, "loss": loss} for time, loss in zip(losses.times, losses.all, strict=True)]
    if losses.right is not None and losses.wrong is not None:
        for row, right, wrong in zip(rows, losses.right, losses.wrong, strict=True):
            row |= {"right_caption": right, "wrong_caption": wrong}
    return rows
