"""How the model leaves: parity and speed of what was exported, and the registered version."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from components.report.blocks import Column, Heading, Items, Line, Picture, Section, Sheets, Table, Text, code, sentence
from components.report.numbers import number
from components.report.run_files import Run

GRAPHS = {"end_to_end": "a whole answer, end to end"}
# Of the throughput report: a figure, and what it is.
SPEED = {
    "requests": "requests answered",
    "requests_set_aside": "set aside",
    "images": "pictures",
    "tokens": "tokens of text",
    "seconds": "seconds",
    "requests_per_s": "requests a second",
}


def engines(run: Run) -> Section | None:
    """None where nothing was exported."""
    blocks = [*_parity(run), *_speed(run)]
    return Section("engines", "Parity and speed", blocks) if blocks else None


def version(run: Run) -> Section | None:
    """None where nothing was registered."""
    found = run.read("register/version.json")
    if not found:
        return None
    aliases = found["aliases"]
    outcome = " and ".join(aliases) if "champion" in aliases else "challenger, and not champion"
    name = code(f"{found['name']} version {found['version']}")
    said = sentence(name, f": {outcome}. Why:")
    later = sentence(
        "As the rule found it when the run registered its bundle; ",
        code("python -m pipelines.promote --dry-run"),
        " says what it finds now. Bundle ",
        code(found["bundle_sha256"][:12]),
        ", training run ",
        code(found["run_id"]),
        ".",
    )
    reasons = Items([Line(reason) for reason in found["reasons"]])
    return Section("version", "Registered version", [Text(said), reasons, Text(later)])


def _parity(run: Run) -> Iterator[Any]:
    graphs = run.read("export/parity.json").get("graphs", {})
    if graphs:
        columns = [
            Column("graph"),
            Column("largest error", number=True),
            Column("allowed", number=True),
            Column("checked on", number=True),
        ]
        rows = [
            [GRAPHS.get(name, name), number(entry["largest_error"]), number(entry["limit"]), _checked(entry)]
            for name, entry in graphs.items()
        ]
        yield Heading("The exported graphs beside eager torch")
        yield Table("Largest absolute differences", columns, rows)
    if tensorrt := run.read("export/tensorrt.json"):
        yield Text(f"TensorRT engine {tensorrt['why']}.")


def _checked(entry: dict[str, Any]) -> str:
    parts = entry.get("shapes", entry.get("parts", ()))
    return f"{len(parts)} {'shapes' if 'shapes' in entry else 'parts of an answer'}"


def _speed(run: Run) -> Iterator[Any]:
    found = run.read("infer/throughput.json")
    if not found:
        return
    yield Heading("The example requests")
    columns = [Column("engine"), *(Column(what, number=True) for what in SPEED.values())]
    yield Table("Throughput", columns, [[found.get("engine", ""), *(number(found[key]) for key in SPEED)]])
    yield Text("Wall time, the start of the processes included.")
    if uri := run.picture("infer/predictions.png"):
        yield Sheets([("Answers", Picture(uri, "generated pictures under their prompts, and given ones under their captions"))])
