"""What the weights are worth: guidance, pictures, captions, and every figure with its interval and meaning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from components.evaluation.metrics import CAPTION_SCORES, CAPTIONS, COMPOSITION, CUTS, curves, table
from components.report.blocks import Cell, Charts, Column, Gallery, Heading, Items, Line, Picture, Section, Shown, Table, Text
from components.report.charts import chart
from components.report.figures import COLUMNS, FAMILIES, better_of, curve_of, name_of, of_family, over, rows, valued
from components.report.numbers import number
from components.report.run_files import Run

TONES = {True: "good", False: "bad", None: ""}


def guidance(run: Run) -> Section | None:
    """None where there were no prompts to measure it on."""
    names = [name for name in curves(run.metrics) if name.startswith("guidance/")]
    if not names:
        return None
    facts = run.read("evaluate/manifest.json").get("facts", {}).get("guidance", {})
    used = facts.get("scale_used")
    mark = (float(used), f"used: {used:g}") if used is not None else None
    charts = []
    for name in names:
        title = f"{name_of(name)}, {better_of(name)} is better"
        if curve := curve_of(run, name, called=name_of(name)):
            charts.append(chart(title[0].upper() + title[1:], over(name), [curve], mark=mark))
    said = "Guidance trades variety for obedience. Each scale drew pictures of the same prompts with the same noise"
    said += f" ({number(facts['num_prompts_of_a_scale'])} of them)." if "num_prompts_of_a_scale" in facts else "."
    if used is not None:
        said += f" All other figures are of scale {used:g}."
    return Section("guidance", "Guidance", [Text(said), Charts(charts)])


def pictures(run: Run) -> Section | None:
    """Generated ones, and the training pictures that are nearest to some. None without any."""
    blocks = [*_generated(run), *_nearest(run)]
    return Section("pictures", "Generated pictures", blocks) if blocks else None


def captions(run: Run) -> Section | None:
    """Of held-out pictures, with the scores of all that were written. None without captions."""
    entries = run.shown.get("captions", [])
    blocks: list[Any] = []
    if scores := _caption_scores(run):
        blocks.append(scores)
    if entries:
        gallery = Gallery([_captioned(entry) for entry in entries], look="beside")
        blocks += [Text("The first held-out pictures, not the best ones."), gallery]
    return Section("captions", "Captions", blocks) if blocks else None


def composition(run: Run) -> Section | None:
    """Composition of the demonstration's scenes, and retrieval on any corpus. None without either."""
    blocks = [*_composition(run), *_retrieval(run)]
    return Section("composition", "Composition and retrieval", blocks) if blocks else None


def figures(run: Run) -> Section | None:
    """All others. None where nothing was measured."""
    elsewhere = {*COMPOSITION, "retrieval", "captions"}
    families = dict.fromkeys(figure.key.split("/")[0] for figure in table(run.metrics))
    blocks: list[Any] = []
    for family in families:
        if family not in elsewhere and (found := of_family(run, family)):
            title = FAMILIES.get(family, family.replace("_", " ").capitalize())
            blocks += [Heading(title), Table(title, COLUMNS, rows(run, found))]
    if not blocks:
        return None
    said = "An interval is where a figure lies in 95% of 2,000 resamples of what it was measured on."
    return Section("figures", "Every other figure", [Text(said), *blocks])


def not_measured(run: Run) -> Section | None:
    """The evaluation's sentences. None where everything was."""
    notes = run.shown.get("notes", [])
    said = [Line(_sentence(note)) for note in notes]
    return Section("not-measured", "What was not measured", [Items(said)]) if said else None


def _sentence(note: str) -> str:
    # A parameter stays as it is written: evaluate.weights.clip.
    return f"{note}." if "." in note.partition(" ")[0] else f"{note[0].upper()}{note[1:]}."


def _generated(run: Run) -> Iterator[Any]:
    entries = run.shown.get("generated", [])
    for group in dict.fromkeys(entry["group"] for entry in entries):
        yield Heading(f"From prompts: {group}")
        yield Text("The first ones, not the best ones.")
        yield Gallery([_drawn(entry) for entry in entries if entry["group"] == group])


def _drawn(entry: dict[str, Any]) -> Shown:
    prompt = entry["prompt"] or "without a prompt"
    lines = [Line(prompt)]
    if entry["right"] is not None:
        lines.append(Line("as asked", tone="good") if entry["right"] else Line(entry["read"] or "nothing", "read", "bad"))
    return Shown([Picture(entry["image"], f"generated: {prompt}")], lines)


def _nearest(run: Run) -> Iterator[Any]:
    pairs = run.shown.get("nearest_training", [])
    if not pairs:
        return
    yield Heading("Beside the nearest training picture")
    threshold = run.read("evaluate/manifest.json").get("facts", {}).get("memorisation", {}).get("threshold")
    said = "The generated pictures that are most like a training picture: left as generated, right the training picture."
    if threshold is not None:
        said += f" Above a likeness of {number(threshold)} a pair is flagged: all but a few held-out pictures stay below it."
    yield Text(said)
    yield Gallery([_pair(pair) for pair in pairs], look="pairs")


def _pair(pair: dict[str, Any]) -> Shown:
    both = [Picture(pair["generated"], "generated picture"), Picture(pair["training"], "the training picture nearest to it")]
    likeness = Line(number(round(pair["similarity"], 4)), "likeness")
    return Shown(both, [likeness, *([Line("flagged", tone="bad")] if pair["flagged"] else [])])


def _caption_scores(run: Run) -> Table | None:
    found = [key for key in CAPTION_SCORES if f"captions/{key}" in run.metrics]
    if not found:
        return None
    columns = [Column("score"), Column("likeliest tokens", number=True), Column("sampled", number=True)]
    scores = [
        [Cell(name_of(key), CAPTION_SCORES[key]), *(valued(run, f"captions/{kind}{key}") for kind in CAPTIONS)] for key in found
    ]
    return Table("Scores of captions, with 95% intervals", columns, scores)


def _captioned(entry: dict[str, Any]) -> Shown:
    references = " / ".join(entry["references"])
    lines = [
        Line(entry["generated"] or "(nothing)", "likeliest", TONES[entry["right"]]),
        Line(entry["sampled"] or "(nothing)", "sampled"),
        Line(references, "corpus"),
    ]
    return Shown([Picture(entry["image"], f"held-out picture: {references}")], lines)


def _composition(run: Run) -> Iterator[Any]:
    columns = [Column("of the pictures"), *(Column(what.partition(":")[0], number=True) for what in COMPOSITION.values())]
    cuts = [
        [Cell(name_of(cut), meaning), *(valued(run, f"{family}/{cut}") for family in COMPOSITION)]
        for cut, meaning in CUTS.items()
        if f"composition/{cut}" in run.metrics
    ]
    if cuts:
        yield Heading("Composition, as GenEval cuts it")
        yield Text("What the digit classifier read. Real scenes show the most that the classifier lets a model reach.")
        yield Table("Composition, with 95% intervals", columns, cuts)


def _retrieval(run: Run) -> Iterator[Any]:
    found = of_family(run, "retrieval")
    if not found:
        return
    yield Heading("Retrieval by the model's own likelihood")
    size = run.settings.get("evaluate", {}).get("retrieval", {}).get("group_size")
    if size:
        yield Text(f"One of {size} captions for an image, and one of {size} images for a caption.")
    yield Table("Retrieval", COLUMNS, rows(run, found))
