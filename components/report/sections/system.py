"""The run itself: what was trained, by which graph and how long, on which machine and with which settings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from components.evaluation.metrics import HEADLINE, table
from components.report.blocks import Cell, Column, Heading, More, Section, Table, Text, code
from components.report.figures import error_of, name_of
from components.report.graph import Node, Stage, edges, nodes, stages_of
from components.report.numbers import between, number, written
from components.report.run_files import Run
from components.runtime.credentials import without_secrets
from components.runtime.progress import duration
from components.runtime.tracking import flatten

# Facts of a machine, and how they are called.
MACHINE = {"processor": "processor", "cores": "cores", "memory_gib": "memory, GiB", "gpus": "GPUs", "system": "system"}


# After those of HEADLINE, of which other corpora have few; and how many stand in the row.
ANY_CORPUS = ("retrieval/caption_at_1", "retrieval/image_at_1", "captions/cider", "distribution/frechet")
NUM_TILES = 6


class Tile(NamedTuple):
    """A figure that stands at the top. family: what it is of. what: its meaning."""

    family: str
    name: str
    value: str
    interval: str
    what: str


class Graph:
    """The graph as a drawing, and a table beside it."""

    kind = "graph"

    def __init__(self, rows: list[Node], what: Table) -> None:
        self.rows, self.edges, self.what = rows, edges(rows), what
        self.texts = [duration(row.seconds) if row.seconds is not None else "" for row in rows]


def tiles(run: Run) -> list[Tile]:
    """The figures that matter most, of those that were measured."""
    measured = {figure.key: figure for figure in table(run.metrics)}
    keys = dict.fromkeys([*HEADLINE.values(), *ANY_CORPUS])
    found = [measured[key] for key in keys if key in measured][:NUM_TILES]
    return [
        Tile(
            each.key.split("/")[0].replace("_", " "),
            name_of(each.key),
            written(each.value),
            between(run.intervals.get(each.key)) or error_of(each),
            each.metric.meaning,
        )
        for each in found
    ]


def graph(run: Run) -> Section:
    """Every stage, with its time where it is known."""
    stages = stages_of(run.pipeline)
    rows = nodes(stages, {name: note["seconds"] for name, note in run.notes.items()})
    total = sum(row.seconds or 0.0 for row in rows)
    together = f"Times are of each stage's last run that ended well, {duration(total)} together."
    said = f"Each stage waits for those that lines lead from. {together if total else 'Their times are not known.'}"
    what = Table("What each stage does", [Column("stage"), Column("what it does")], list(_described(rows)))
    drawn = Graph(rows, Table("At a glance", [Column("at a glance"), Column("")], list(_at_a_glance(run, total))))
    return Section("graph", "The graph", [Text(said), drawn, More("What each stage does", [what])])


def system(run: Run) -> Section:
    """Machines, versions, commit, seed and settings."""
    blocks: list[Any] = [*_ran(run), Heading("Settings")]
    for section, values in run.settings.items():
        lines = [[code(key), without_secrets(json.dumps(value, ensure_ascii=False))] for key, value in flatten(values).items()]
        blocks.append(More(section, [Table(f"Settings of {section}", [Column("parameter"), Column("value")], lines)]))
    return Section("system", "Machine, versions and settings", blocks)


def _at_a_glance(run: Run, total: float) -> Iterator[list[str]]:
    """What a colleague asks first; what is not known is left out."""
    trained, ingested = run.read("train/metrics.json"), run.read("ingest/counts.json")
    if ingested:
        training = ingested["splits"].get("train", {}).values()
        documents, images = (sum(entry[key] for entry in training) for key in ("documents", "images"))
        yield ["trained on", f"{number(documents)} documents with {number(images)} pictures"]
    if trained:
        yield ["model", f"{number(trained['num_parameters'])} parameters, {number(trained['steps'])} steps"]
    yield ["seed", str(run.settings["train"]["seed"])]
    if note := run.notes.get("train"):
        machine = note["machine"]
        cores = f"{machine['cores']} cores, {number(machine['memory_gib'])} GiB of memory"
        yield ["trained by", ", ".join([machine["processor"], cores, *machine["gpus"]])]
        yield ["trained until", note["ended"]]
        if note["code"]:
            yield ["commit", code(note["code"]["commit"][:12])]
    if total:
        yield ["all stages", duration(total)]
    if version := run.read("register/version.json"):
        yield ["registered as", f"{version['name']} version {version['version']}, {' and '.join(version['aliases'])}"]


def _described(rows: list[Node]) -> Iterator[list[str | Cell]]:
    for row in rows:
        stage: Stage = row.stage
        after = f"After {', '.join(stage.after)}." if stage.after else ""
        yield [stage.name, Cell(stage.says, after)]


def _ran(run: Run) -> Iterator[Any]:
    groups: dict[str, list[str]] = {}
    for name, note in run.notes.items():
        groups.setdefault(json.dumps([note[part] for part in ("machine", "versions", "code")]), []).append(name)
    for told, names in groups.items():
        machine, versions, written_by = json.loads(told)
        if len(groups) > 1:
            yield Heading(", ".join(names))
        yield Table("How it ran", [Column("fact"), Column("value")], list(_facts(machine, versions, written_by)))
    seeds = {section: values["seed"] for section, values in run.settings.items() if "seed" in values}
    yield Text("Seeds: " + ", ".join(f"{section} {seed}" for section, seed in seeds.items()) + ".")
    if not groups:
        yield Text("No stage has run here since machines are noted, so machine, versions and commit are not known.")


def _facts(machine: Mapping[str, Any], versions: Mapping[str, str], written_by: Mapping[str, Any]) -> Iterator[list[str]]:
    for key, name in MACHINE.items():
        value = machine[key]
        text = ", ".join(value) if isinstance(value, list) else str(value)
        yield [name, text or "none"]
    yield ["versions", ", ".join(f"{name} {version}" for name, version in versions.items())]
    if written_by:
        differs = ", with changes that are not in it" if written_by["differs"] else ""
        yield ["commit", code(written_by["commit"][:12]) + differs]
