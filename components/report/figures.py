"""Figures for the page: their names in words, families, and rows of a table with interval and meaning."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from components.evaluation.metrics import OF_CURVE, Figure, axis_of, curves, metric_of, table
from components.report.blocks import Cell, Column, code
from components.report.charts import Point, Series
from components.report.numbers import between, with_interval, written
from components.report.run_files import Run

# By the first part of a key; any other family has its key's own word.
FAMILIES = {
    "text_to_image": "Pictures from prompts, as the digit classifier reads them",
    "image_to_text": "Captions of held-out scenes, by the objects they name",
    "captions": "Captions beside those of the corpus",
    "text": "Held-out prose",
    "image": "Losses on held-out images",
    "conditioning": "What captions change",
    "distribution": "Generated beside held-out pictures",
    "fid": "FID and KID, in Inception's features",
    "clip": "CLIP score",
    "memorisation": "Copies of training pictures",
}
# Words of keys that are names, or say too little alone.
WORDS = {
    "cider": "CIDEr",
    "bleu4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "kid": "KID",
    "kid_floor": "KID of training pictures",
    "frechet": "Frechet distance",
    "frechet_floor": "Frechet distance of training pictures",
    "x0_error": "error of the clean latent",
    "x0_error_of_mean": "error of the mean latent",
    "wrong_caption_x0_gap": "gap of the clean latent's error",
    "caption_gap": "what a wrong caption costs",
    "exact": "word for word",
    "caption_at_1": "the right caption first",
    "image_at_1": "the right image first",
    "judge_on_real": "the classifier on real scenes",
    "judge_scenes_on_real": "the classifier on whole real scenes",
    "judge_on_reconstructed": "the classifier after the autoencoder",
    "objects_right_kept_out": "objects right, pairs never shown",
    "scenes_right_kept_out": "scenes right, pairs never shown",
    "xz_bits_per_byte": "bits per byte of xz",
    "zstd_bits_per_byte": "bits per byte of zstd",
    "ppmd_bits_per_byte": "bits per byte of PPMd",
    "ngram_bits_per_byte": "bits per byte of a 5-gram",
}
COLUMNS = (Column("figure"), Column("value", number=True), Column("95% interval", number=True), Column("better"))


def name_of(key: str) -> str:
    """The last part of a key in words: "text_to_image/objects_right" -> "objects right"."""
    last = key.rpartition("/")[2]
    return WORDS.get(last, last.replace("_", " "))


def of_family(run: Run, family: str) -> list[Figure]:
    """The measured figures of a family, but for those of curves."""
    drawn = {f"{name}{OF_CURVE[:-1]}" for name in curves(run.metrics)}
    in_family = (figure for figure in table(run.metrics) if figure.key.split("/")[0] == family)
    return [figure for figure in in_family if not any(figure.key.startswith(beginning) for beginning in drawn)]


def rows(run: Run, figures: Iterable[Figure]) -> list[list[str | Cell]]:
    """Of COLUMNS."""
    return [
        [
            Cell(name_of(figure.key), sentence_of(figure)),
            written(figure.value),
            between(run.intervals.get(figure.key)) or error_of(figure),
            figure.metric.better,
        ]
        for figure in figures
    ]


def sentence_of(figure: Figure) -> str:
    """What it is, and where it stands in metrics.json."""
    return code(figure.key) + f" {figure.metric.meaning}"


def error_of(figure: Figure) -> str:
    """The standard error, for a figure without an interval."""
    return "" if figure.standard_error is None else f"+- {written(figure.standard_error)}"


def valued(run: Run, key: str) -> str:
    """A figure with its interval; nothing where it was not measured."""
    return with_interval(run.metrics[key], run.intervals.get(key)) if key in run.metrics else ""


def curve_of(run: Run, name: str, **look: Any) -> Series | None:
    """A figure over noise levels or guidance scales; None where it was not measured."""
    # By the keys: `curves` goes by hundredths, and a noise level may lie between two of them.
    found = sorted((float(key.rpartition("/")[2]), key) for key in run.metrics if key.startswith(f"{name}{OF_CURVE[:-1]}"))
    if not found:
        return None
    points = [(x, run.metrics[key]) for x, key in found]
    return Series(look.pop("called", name_of(name)), points, [_span(run, key) for _, key in found], **look)


def better_of(name: str) -> str:
    """Of a curve: "higher" or "lower"."""
    metric = metric_of(f"{name}/0")
    return metric.better if metric else ""


def over(name: str) -> str:
    """What a curve goes over, for its axis."""
    return "guidance scale" if axis_of(name).endswith("guidance") else "noise level"


def _span(run: Run, key: str) -> Point | None:
    interval = run.intervals.get(key)
    return (interval["low"], interval["high"]) if interval else None
