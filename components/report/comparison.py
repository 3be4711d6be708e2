"""The page of `python -m pipelines.compare`: figures of evaluations beside each other, and their pictures side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from string import hexdigits
from typing import Any

from components.evaluation.differences import Difference, Evaluation, by_chance, reasons
from components.evaluation.kept_pictures import KeptPicture
from components.report.blocks import (
    Cell,
    Column,
    Gallery,
    Heading,
    Items,
    Line,
    More,
    Picture,
    Section,
    Shown,
    Table,
    Text,
    code,
)
from components.report.pictures import file_uri
from components.report.rendering import rendered

TONES = {"better": "good", "worse": "bad", "": ""}
RIGHT = {True: "good", False: "bad", None: ""}
Compared = Sequence[tuple[Evaluation, Sequence[Difference]]]
Asked = tuple[str, str, int]
"""What a picture is kept for: the group, the prompt, and how many of that prompt came before; all have "" without captions."""
Drawn = Mapping[str, Mapping[Asked, KeptPicture]]
"""Of each evaluation its pictures, in their order."""


def comparison_page(first: Evaluation, others: Compared) -> str:
    """One HTML file that needs nothing but itself. others: each with its differences from the first."""
    runs = [first, *(other for other, _ in others)]
    sections = [_runs(runs), _pictures(runs), *(_figures(number, first, *each) for number, each in enumerate(others))]
    title = " and ".join(short(run.name) for run in runs)
    return rendered("comparison.html", title, sections)


def short(name: str) -> str:
    """The beginning of the id of a run or of a commit."""
    return name[:8] if len(name) >= 32 and set(name) <= set(hexdigits) else name


def _runs(runs: Sequence[Evaluation]) -> Section:
    columns = (Column("evaluation"), Column("what it is of"), Column("figures", number=True))
    rows = [[run.name, run.about, str(len(run.metrics))] for run in runs]
    return Section("runs", "What is compared", [Table("What is compared", columns, rows)])


def _figures(number: int, first: Evaluation, other: Evaluation, found: Sequence[Difference]) -> Section:
    said = (
        "The difference is the second less the first. Its interval holds it in 95% of 2,000 resamples of the items that both "
    )
    said += "were measured on, the same ones drawn for both. Better and worse are said where it leaves 0 out."
    columns = (
        *(Column("figure"), Column(short(first.name), number=True), Column(short(other.name), number=True)),
        *(Column("difference", number=True), Column("95% of resamples", number=True), Column("")),
    )
    blocks: list[Any] = [Text(f"{said} {by_chance(found)}".rstrip())]
    told = [each for each in found if each.verdict]
    if told:
        blocks.append(Table("Figures that resamples tell apart", columns, [_row(each) for each in told]))
    else:
        blocks.append(Text("No figure has an interval that leaves 0 out, so resamples do not tell the two apart."))
    blocks.append(More(f"All {len(found)} figures", [Table("All figures", columns, [_row(each) for each in found])]))
    why = [Line(f"{reason}: {', '.join(keys)}") for reason, keys in reasons(found).items()]
    if why:
        blocks.append(More(f"Why {sum(bool(each.why_none) for each in found)} figures have no interval", [Items(why)]))
    return Section(f"figures-{number}", f"{short(other.name)} beside {short(first.name)}", blocks)


def _row(each: Difference) -> list[str | Cell]:
    ends = f"{each.interval[0]:+.4g} to {each.interval[1]:+.4g}" if each.interval else ""
    difference = "" if each.value is None else f"{each.value:+.4g}"
    values = ["" if value is None else f"{value:.6g}" for value in (each.first, each.second)]
    better = f"{each.metric.meaning} ({each.metric.better} is better)"
    return [Cell(code(each.key), better), *values, difference, ends, Cell(each.verdict, tone=TONES[each.verdict])]


def _pictures(runs: Sequence[Evaluation]) -> Section:
    kept = {run.name: _by_prompt(run) for run in runs}
    with_pictures = [run for run in runs if kept[run.name]]
    shared = [
        key
        for key in (kept[with_pictures[0].name] if with_pictures else ())
        if all(key in kept[run.name] for run in with_pictures)
    ]
    blocks: list[Any] = [Text(sentence) for sentence in _about_pictures(runs, with_pictures, kept, shared)]
    for group in dict.fromkeys(group for group, *_ in shared):
        entries = [_shown(with_pictures, kept, key) for key in shared if key[0] == group]
        blocks += [Heading(group[:1].upper() + group[1:]), Gallery(entries)]
    return Section("pictures", "Pictures", blocks)


def _about_pictures(runs: Sequence[Evaluation], shown: Sequence[Evaluation], kept: Drawn, shared: Sequence[Asked]) -> list[str]:
    names = {run.name for run in shown}
    said = [f"{short(run.name)} kept no pictures, since {_why_none(run)}." for run in runs if run.name not in names]
    if len(shown) < 2:
        return [*said, "So there is nothing to be shown side by side."]
    if not shared:
        return [*said, "No prompt was drawn in all of them, so there is nothing to be shown side by side."]
    why = _why_other_noise(shown, kept, shared)
    order = ", ".join(short(run.name) for run in shown)
    which = f"From the same prompts{'' if why else ' and the same noise'}, from left to right: {order}."
    return [*said, f"{which} The first ones, not the best ones.", *([f"The noise is not the same: {why}."] if why else [])]


def _why_other_noise(shown: Sequence[Evaluation], kept: Drawn, shared: Sequence[Asked]) -> str:
    """Why the pictures did not begin with the same latents; "" where they did."""
    seeds = {run.name: run.kept.settings.get("seed") for run in shown if run.kept}
    if len(set(seeds.values())) > 1:
        return f"evaluate.seed is {', '.join(f'{seed} in {short(name)}' for name, seed in seeds.items())}"
    if len({run.kept.autoencoder for run in shown if run.kept}) > 1:
        return "they have different autoencoders, so it is of different latents"
    places = [_places(run, kept[run.name]) for run in shown]
    num_moved = sum(len({place[asked] for place in places}) > 1 for asked in shared)
    if num_moved:
        return f"it depends on a prompt's number, which differs for {num_moved} of {len(shared)}"
    return ""


def _places(run: Evaluation, pictures: Mapping[Asked, KeptPicture]) -> dict[Asked, tuple[Any, ...]]:
    """Where each prompt stood: its number, and, since only the first of a group are kept, how many the first group had."""
    first, num = next(iter(pictures))[0], run.kept.settings.get("num_seen_scenes") if run.kept else None
    return {asked: (number, None if asked[0] == first else num) for number, asked in enumerate(pictures)}


def _why_none(run: Evaluation) -> str:
    return run.why_none if run.kept is None else "its evaluation generated none, or is from before they were kept"


def _by_prompt(run: Evaluation) -> dict[Asked, KeptPicture]:
    before: Counter[tuple[str, str]] = Counter()
    found: dict[Asked, KeptPicture] = {}
    for each in run.kept.pictures if run.kept else ():
        prompt = (each.group, each.prompt)
        found[(*prompt, before[prompt])] = each
        before[prompt] += 1
    return found


def _shown(runs: Sequence[Evaluation], kept: Drawn, key: Asked) -> Shown:
    prompt = key[1] or "without a prompt"
    pictures = [Picture(file_uri(kept[run.name][key].png), f"{run.name}: {prompt}") for run in runs]
    read = [(short(run.name), kept[run.name][key]) for run in runs]
    lines = [
        Line("as asked" if each.right else each.read or "nothing", name, RIGHT[each.right])
        for name, each in read
        if each.read or each.right is not None
    ]
    return Shown(pictures, [Line(prompt), *lines])
