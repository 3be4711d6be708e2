"""The corpus: what was taken and what was not, and why; and its first documents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from components.data.documents import SPLITS
from components.report.blocks import Column, Gallery, Heading, Items, Line, More, Picture, Section, Shown, Table, Text
from components.report.numbers import number
from components.report.run_files import Example, Run

MEBI = 2**20
GATES = {"documents": "documents", "latents": "encoded documents"}


def corpus(run: Run) -> Section | None:
    """None where nothing was ingested."""
    counts = run.read("ingest/counts.json")
    if not counts:
        return None
    blocks = [*_counts(run, counts), *_rejected(counts), *_gates(run), *_examples(run)]
    return Section("corpus", "Corpus", blocks)


def _counts(run: Run, counts: Mapping[str, Any]) -> Iterator[Any]:
    splits = {split: counts["splits"][split] for split in SPLITS if split in counts.get("splits", {})}
    columns = [Column("corpus"), Column("split")]
    columns += [Column(name, number=True) for name in ("documents", "pictures", "tokens", "text", "longest")]
    rows = [
        [
            source,
            split,
            number(entry["documents"]),
            number(entry["images"]),
            number(entry["tokens"]),
            f"{entry['text_bytes'] / MEBI:.2f} MiB",
            f"{number(entry['longest_tokens'])} tokens",
        ]
        for source in dict.fromkeys(source for sources in splits.values() for source in sources)
        for split, entry in ((split, sources[source]) for split, sources in splits.items() if source in sources)
    ]
    side = counts.get("image_side_px")
    yield Text(f"Pictures are {side} by {side} pixels; the tokenizer has {number(counts.get('vocab_size', 0))} tokens.")
    yield Table("Documents by corpus and split", columns, rows)
    if use := run.read("encode/latents.json").get("packing_fill", {}):
        yield Text("Packed rows are full to " + ", ".join(f"{fill:.1%} ({split})" for split, fill in use.items()) + ".")


def _rejected(counts: Mapping[str, Any]) -> Iterator[Any]:
    corpora = counts.get("corpora", {})
    columns = [Column("corpus")]
    columns += [Column(name, number=True) for name in ("records", "documents", "rejected", "duplicates dropped")]
    rows = [
        [name, *(number(entry[key]) for key in ("records", "documents", "rejected", "duplicates_dropped"))]
        for name, entry in corpora.items()
    ]
    yield Heading("What became of the records")
    yield Table("Records by corpus", columns, rows)
    kinds = {"reasons": "rejected", "duplicates": "duplicates", "notes": "taken, with a note", "passed_over": "passed over"}
    lines = [
        Line(f"{reason}: {_counted(found)}", label=f"{name}, {what}")
        for name, entry in corpora.items()
        for kind, what in kinds.items()
        for reason, found in entry.get(kind, {}).items()
    ]
    yield Items(lines) if lines else Text("No record was rejected, passed over or noted.")


def _counted(found: Any) -> str:
    """A number, or one with examples."""
    if not isinstance(found, Mapping):
        return number(found)
    examples = found.get("first", ())
    return number(found.get("number", 0)) + (f" (such as {', '.join(map(str, examples))})" if examples else "")


def _gates(run: Run) -> Iterator[Any]:
    lines = []
    for which, what in GATES.items():
        if said := run.read(f"validate/{which}.json"):
            outcome = f"{len(said['findings'])} expectations of the {what} checked, {said['num_quarantined']:,} set aside"
            lines.append(Line(outcome, "passed", "good") if said["passed"] else Line(outcome, "refused", "bad"))
            lines += [Line(warning, label="warning", tone="bad") for warning in said["warnings"]]
            lines += [Line(f"{entry['key']}: {entry['reason']}", label="set aside") for entry in said["quarantined"]]
    if lines:
        yield Heading("What the gates found")
        yield Items(lines)


def _examples(run: Run) -> Iterator[Any]:
    for source, examples in run.examples.items():
        pictured = [example for example in examples if example.pictures]
        yield Heading(f"From {source}")
        if pictured:
            yield Text("The first training documents, as they are trained on.")
            yield Gallery([_shown(example) for example in pictured])
        texts = [example for example in examples if not example.pictures]
        if texts:
            yield More(f"The beginnings of {len(texts)} texts", [Items([Line(" ".join(example.texts)) for example in texts])])


def _shown(example: Example) -> Shown:
    said = " / ".join(example.texts)
    pictures = [Picture(uri, said or "a picture without text") for uri in example.pictures]
    return Shown(pictures, [Line(said) if said else Line("without text")])
